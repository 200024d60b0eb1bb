// When the script registers the type, and when it stands down. It never throws into the page.

const assert = require('node:assert/strict');
const fs = require('node:fs');
const { test } = require('node:test');

const { NAME, SCRIPT, XTYPES, load, page } = require('./recorder.js');

// The script does nothing to this page; it says so once at most.
let standsDown = function (on, warnings) {
    let before = { ...on.globals.PVE?.Utils?.storageSchema };
    load(on);
    assert.ok(!(NAME in on.defined), 'no class is defined');
    assert.deepEqual({ ...on.globals.PVE?.Utils?.storageSchema }, before);
    assert.equal(on.warnings.length, warnings);
};

test('the type is registered with a panel that exists', () => {
    let { globals, defined, warnings } = load();
    let schema = globals.PVE.Utils.storageSchema.drbdocfs2;
    assert.equal(schema.name, 'DRBD/OCFS2');
    assert.ok(`PVE.storage.${schema.ipanel}` in defined);
    assert.equal(schema.backups, true);
    assert.match(schema.faIcon, /^(?!fa-)[a-z-]+$/);
    assert.ok(!schema.hideAdd);
    assert.equal(defined[NAME].extend, 'PVE.panel.StorageBase');
    assert.deepEqual(warnings, []);
});

test('the types of PVE stay as they are', () => {
    let on = page();
    let { dir } = on.globals.PVE.Utils.storageSchema;
    load(on);
    assert.equal(on.globals.PVE.Utils.storageSchema.dir, dir);
});

test('a PVE that knows the type keeps its own dialog', () => {
    let on = page();
    let own = { name: 'of PVE' };
    on.globals.PVE.Utils.storageSchema.drbdocfs2 = own;
    standsDown(on, 0);
    assert.equal(on.globals.PVE.Utils.storageSchema.drbdocfs2, own);
});

test('loaded twice, it registers once', () => {
    let on = load();
    let first = on.globals.PVE.Utils.storageSchema.drbdocfs2;
    load(on);
    assert.equal(on.globals.PVE.Utils.storageSchema.drbdocfs2, first);
    assert.deepEqual(on.warnings, []);
});

const MISSING = {
    Ext: (on) => delete on.globals.Ext,
    'Ext.define': (on) => delete on.globals.Ext.define,
    'Ext.ClassManager': (on) => delete on.globals.Ext.ClassManager,
    'Ext.ClassManager.get': (on) => delete on.globals.Ext.ClassManager.get,
    'Ext.ClassManager.getByAlias': (on) => delete on.globals.Ext.ClassManager.getByAlias,
    gettext: (on) => delete on.globals.gettext,
    PVE: (on) => delete on.globals.PVE,
    'PVE.Utils': (on) => delete on.globals.PVE.Utils,
    'PVE.Utils.storageSchema': (on) => delete on.globals.PVE.Utils.storageSchema,
    'a storageSchema that is null': (on) => (on.globals.PVE.Utils.storageSchema = null),
    'PVE.panel.StorageBase': (on) => delete on.defined['PVE.panel.StorageBase'],
};
for (const xtype of XTYPES) {
    MISSING[xtype] = (on) => on.aliases.delete(`widget.${xtype}`);
}
for (const [piece, take] of Object.entries(MISSING)) {
    test(`without ${piece} it stands down`, () => {
        let on = page();
        take(on);
        standsDown(on, 1);
        assert.ok(!XTYPES.includes(piece) || on.warnings[0].includes(piece), on.warnings[0]);
    });
}

const FAILING = {
    'Ext.define throws': (on) => {
        on.globals.Ext.define = () => {
            throw new Error('no');
        };
    },
    'Ext.define defines nothing': (on) => (on.globals.Ext.define = () => undefined),
    'the class manager throws': (on) => {
        on.globals.Ext.ClassManager.getByAlias = () => {
            throw new Error('no');
        };
    },
};
for (const [what, fail] of Object.entries(FAILING)) {
    test(`where ${what}, the page and its menu stay as they are`, () => {
        let on = page();
        fail(on);
        standsDown(on, 1);
    });
}

test('a storageSchema that cannot be written to throws nothing into the page', () => {
    let on = page();
    on.globals.PVE.Utils.storageSchema = Object.freeze({});
    load(on);
    assert.deepEqual(Object.keys(on.globals.PVE.Utils.storageSchema), []);
});

test('the xtypes demanded are those the panel uses', () => {
    let used = fs.readFileSync(SCRIPT, 'utf8').matchAll(/xtype: (?:isCreate \? )?'(\w+)'(?: : '(\w+)')?/g);
    let names = new Set([...used].flatMap(([, one, other]) => [one, other]).filter((name) => name));
    assert.deepEqual([...names].sort(), [...XTYPES].sort());
});

test("the script is not strict: ExtJS's callParent needs the caller", () => {
    assert.doesNotMatch(fs.readFileSync(SCRIPT, 'utf8'), /^\s*['"]use strict['"]/m);
});
