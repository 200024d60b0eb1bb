// The dialog's panel: what it offers, accepts and sends, for a new storage and for an existing one.

const assert = require('node:assert/strict');
const { test } = require('node:test');

const agreed = require('./agreed.json');
const { load, page, panel } = require('./recorder.js');

const UUID = '0123456789ABCDEF0123456789ABCDEF';
const STORED = {
    storage: 'ha',
    type: 'drbdocfs2',
    path: '/mnt/pve/ha',
    'drbdocfs2-resource': 'r0',
    'drbdocfs2-volume': 1,
    'drbdocfs2-uuid': UUID,
    content: ['images', 'rootdir'],
    preallocation: 'falloc',
    format: 'qcow2',
    enable: 1,
};

let adding = () => panel(load());

let editing = function (changes) {
    let dialog = panel(load(), 'ha');
    dialog.load({ ...STORED, ...changes });
    return dialog;
};

// Values made in the script's own realm are not deeply equal to the test's, whatever they hold.
let plain = (value) => JSON.parse(JSON.stringify(value));

test('the dialog has the fields agreed on', () => {
    for (const dialog of [adding(), editing()]) {
        let names = dialog.fields.map((field) => field.name).filter((name) => name);
        assert.deepEqual(names.sort(), [...agreed.fields].sort());
    }
});

for (const [name, values] of Object.entries(agreed.values)) {
    for (const value of values.good) {
        test(`${name}: ${JSON.stringify(value)} is accepted`, () => {
            assert.deepEqual(adding().field(name).errors(value), []);
        });
    }
    for (const value of values.bad) {
        test(`${name}: ${JSON.stringify(value)} is refused, with what to write`, () => {
            let [message, ...more] = adding().field(name).errors(value);
            assert.match(message, /^(Write|Use|Begin) .+\.$/);
            assert.deepEqual(more, []);
            assert.ok(!/[<>]/.test(message), 'messages are HTML, so none repeats what was typed');
        });
    }
    for (const [typed, sent] of Object.entries(values.typed)) {
        test(`${name}: ${JSON.stringify(typed)} is sent as ${JSON.stringify(sent)}`, () => {
            let dialog = adding();
            assert.deepEqual(dialog.field(name).errors(typed), []);
            dialog.field(name).setValue(typed);
            assert.equal(dialog.submit()[name], sent);
        });
    }
}

test('what must be there is demanded with one message that says what to write', () => {
    for (const name of ['drbdocfs2-resource', 'path']) {
        let messages = adding().field(name).errors('');
        assert.equal(messages.length, 1);
        assert.match(messages[0], /^Write /);
        assert.match(adding().field(name).errors('  ')[0], /^Write /);
    }
    assert.equal(adding().field('content').allowBlank, false);
});

test('volume and UUID may be left empty', () => {
    for (const name of ['drbdocfs2-volume', 'drbdocfs2-uuid']) {
        assert.deepEqual(adding().field(name).errors(''), []);
    }
});

test('no placeholder looks like a value of a field that must be filled in', () => {
    for (const field of adding().fields.filter((one) => one.allowBlank === false)) {
        assert.equal(field.emptyText, undefined, field.name);
    }
});

test('the contents on offer are the plugin\'s, "import" only where PVE knows it', () => {
    let { always, default: preset, 'where PVE has it': newer } = agreed.content;
    let field = adding().field('content');
    assert.deepEqual(plain(field.cts).sort(), [...always, ...newer].sort());
    assert.deepEqual(plain(field.value).sort(), [...preset].sort());

    let older = page();
    delete older.globals.PVE.Utils.contentTypes.import;
    assert.deepEqual(plain(panel(load(older)).field('content').cts).sort(), [...always].sort());
    delete older.globals.PVE.Utils.contentTypes;
    assert.deepEqual(plain(panel(load(older)).field('content').cts).sort(), [...always].sort());
});

test("the formats on offer are the plugin's, none preset", () => {
    let field = adding().field('format');
    let [[preset, label], ...others] = plain(field.comboItems);
    assert.equal(field.value, preset);
    assert.equal(preset, '__default__');
    assert.ok(label.includes(`(${agreed.format.default})`));
    assert.deepEqual(others.map(([key]) => key).sort(), [...agreed.format.allowed].sort());
});

test('the mount point is suggested from the ID as it is typed', () => {
    let dialog = adding();
    let seen = ['h', 'ha', 'ha-', 'ha-x', ''].map((id) => {
        dialog.field('storage').setValue(id);
        return dialog.field('path').getValue();
    });
    assert.deepEqual(seen, ['/mnt/pve/h', '/mnt/pve/ha', '/mnt/pve/ha-', '/mnt/pve/ha-x', '']);
});

test('no mount point is suggested that would be refused', () => {
    let dialog = adding();
    dialog.field('storage').setValue('ha');
    dialog.field('storage').setValue('ha;x');
    assert.equal(dialog.field('path').getValue(), '/mnt/pve/ha');
    dialog.field('storage').setValue('hax');
    assert.equal(dialog.field('path').getValue(), '/mnt/pve/hax');
});

test('a mount point the user wrote, or emptied, stays', () => {
    for (const own of ['/srv/ha', '']) {
        let dialog = adding();
        dialog.field('storage').setValue('h');
        dialog.field('path').setValue(own);
        dialog.field('storage').setValue('ha');
        assert.equal(dialog.field('path').getValue(), own);
    }
});

test('adding with nothing optional sends nothing optional and no delete', () => {
    let dialog = adding();
    dialog.field('storage').setValue('ha');
    dialog.field('drbdocfs2-resource').setValue('r0');
    assert.deepEqual(plain(dialog.submit()), {
        storage: 'ha',
        type: 'drbdocfs2',
        path: '/mnt/pve/ha',
        'drbdocfs2-resource': 'r0',
        content: ['images', 'rootdir'],
        disable: 0,
    });
});

test('adding sends what was filled in', () => {
    let dialog = adding();
    dialog.load(STORED);
    let { enable, ...values } = STORED;
    assert.equal(enable, 1);
    assert.deepEqual(plain(dialog.submit()), { ...values, disable: 0 });
});

test('editing shows ID and mount point, and sends neither', () => {
    let dialog = editing();
    for (const name of ['storage', ...agreed.fixed]) {
        assert.equal(dialog.field(name).xtype, 'displayfield', name);
        dialog.field(name).xtype = 'textfield'; // whatever the field itself would do
    }
    assert.equal(dialog.field('path').getValue(), '/mnt/pve/ha');
    let sent = dialog.submit();
    for (const name of ['storage', 'type', ...agreed.fixed]) {
        assert.ok(!(name in sent), name);
    }
});

test('a path from storage.cfg is shown as text, never as HTML', () => {
    assert.equal(editing().field('path').htmlEncode, true);
});

test('editing without a change sends the values again', () => {
    assert.deepEqual(plain(editing().submit()), {
        'drbdocfs2-resource': 'r0',
        'drbdocfs2-volume': 1,
        'drbdocfs2-uuid': UUID,
        content: ['images', 'rootdir'],
        preallocation: 'falloc',
        format: 'qcow2',
        disable: 0,
    });
});

test('what is emptied on edit is deleted, volume 0 is not', () => {
    let dialog = editing();
    dialog.field('drbdocfs2-volume').setValue(null);
    dialog.field('drbdocfs2-uuid').setValue('');
    dialog.field('preallocation').setValue('__default__');
    dialog.field('format').setValue('__default__');
    let sent = plain(dialog.submit());
    assert.deepEqual(sent.delete.sort(), ['drbdocfs2-uuid', 'drbdocfs2-volume', 'format', 'preallocation']);
    assert.equal(plain(editing({ 'drbdocfs2-volume': 0 }).submit())['drbdocfs2-volume'], 0);
});

test('disabling on edit is sent', () => {
    assert.equal(editing({ enable: 0 }).submit().disable, 1);
});

test('a storage without a resource can be edited, one with a resource not lose it', () => {
    assert.notDeepEqual(editing().field('drbdocfs2-resource').errors(''), []);
    let { 'drbdocfs2-resource': gone, ...others } = STORED;
    assert.equal(gone, 'r0');
    let dialog = panel(load(), 'ha');
    dialog.load(others);
    assert.deepEqual(dialog.field('drbdocfs2-resource').errors(''), []);
    let sent = dialog.submit();
    assert.ok(!('drbdocfs2-resource' in sent) && !('delete' in sent));
});

test('a hint says what must exist first and where the manual is', () => {
    let hints = adding().columnB.map((field) => field.value).join(' ');
    let exists = ['DRBD resource', 'dual-primary', 'OCFS2', 'pvedrbdstor on every node'];
    for (const word of [...exists, 'man drbdocfs2', '/usr/share/doc/pvedrbdstor']) {
        assert.ok(hints.includes(word), word);
    }
});
