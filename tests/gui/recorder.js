// Own, small stand-ins for what the dialog meets in Proxmox's web interface: Ext.define as a recorder, the base panel,
// and fields that send what Proxmox's fields are documented to send. Layout and real ExtJS are the browser test's.

const fs = require('node:fs');
const path = require('node:path');
const vm = require('node:vm');

const SCRIPT = path.join(__dirname, '..', '..', 'gui', 'drbdocfs2.js');
const NAME = 'PVE.storage.DRBDOCFS2InputPanel';

const XTYPES = [
    'textfield',
    'displayfield',
    'proxmoxtextfield',
    'proxmoxintegerfield',
    'proxmoxKVComboBox',
    'pveContentTypeSelector',
    'pvePreallocationSelector',
];

// The globals of a page, and what was done to them: `defined` by class name, `warnings`.
function page() {
    let defined = { 'PVE.panel.StorageBase': {} };
    let aliases = new Set(XTYPES.map((xtype) => `widget.${xtype}`));
    let warnings = [];
    let globals = {
        gettext: (text) => text,
        console: { warn: (...words) => warnings.push(words.join(' ')) },
        PVE: {
            Utils: {
                storageSchema: { dir: { name: 'Directory', ipanel: 'DirInputPanel' } },
                contentTypes: { images: 'Disk image', import: 'Import' },
            },
        },
        Ext: {
            define: (name, members) => {
                defined[name] = members;
            },
            ClassManager: {
                get: (name) => defined[name] ?? null,
                getByAlias: (alias) => (aliases.has(alias) ? {} : undefined),
            },
        },
    };
    return { globals, defined, aliases, warnings };
}

// Run the script as the page would. What it throws is the test's to see.
function load(on = page()) {
    vm.runInNewContext(fs.readFileSync(SCRIPT, 'utf8'), on.globals, { filename: SCRIPT });
    return on;
}

// One field of the panel: its config, a value, and a 'change' event.
class Field {
    constructor(config) {
        Object.assign(this, config);
        this.listeners = [];
        this.value = config.value ?? null;
    }

    on(event, listener) {
        if (event === 'change') {
            this.listeners.push(listener);
        }
    }

    getValue() {
        return this.value;
    }

    setValue(value) {
        this.value = value;
        this.listeners.forEach((listener) => listener(this, value));
    }

    setAllowBlank(allowBlank) {
        this.allowBlank = allowBlank;
    }

    // The messages shown for what is typed into the field, as Ext.form.field.Text.getErrors collects them.
    errors(typed) {
        let answer = this.validator ? this.validator(typed) : true;
        let messages = answer === true ? [] : [answer];
        if (typed === '' && this.allowBlank === false) {
            messages.push(this.blankText ?? 'This field is required');
        }
        return messages;
    }

    submitData() {
        if (this.xtype === 'displayfield') {
            return {};
        }
        if (this.value === null || this.value === '' || this.value === '__default__') {
            return this.deleteEmpty ? { delete: this.name } : {};
        }
        return { [this.name]: this.value };
    }
}

// The panel as BaseEdit makes it, for a new storage or, with an id, an existing one.
function panel(on, storageId) {
    let members = on.defined[NAME];
    let me = Object.create(members);
    Object.assign(me, { isCreate: !storageId, storageId, type: 'drbdocfs2', fields: [] });

    let base = {
        initComponent() {
            let id = { xtype: me.isCreate ? 'textfield' : 'displayfield', name: 'storage', value: storageId ?? '' };
            let nodes = { xtype: 'pveNodeSelector', name: 'nodes' };
            let enable = { xtype: 'proxmoxcheckbox', name: 'enable', value: 1 };
            let columns = ['column1', 'column2', 'columnB', 'advancedColumn1', 'advancedColumn2', 'advancedColumnB'];
            let configs = [id, nodes, enable, ...columns.flatMap((column) => me[column] ?? [])];
            me.fields = configs.map((config) => new Field(config));
        },
        onSetValues: (values) => values,
        onGetValues(values) {
            if (me.isCreate) {
                values.type = me.type;
            } else {
                delete values.storage;
            }
            values.disable = values.enable ? 0 : 1;
            delete values.enable;
            return values;
        },
    };
    // ExtJS knows the method by its caller; here each one is told its parent.
    for (const method of Object.keys(base)) {
        let own = members[method] ?? base[method];
        me[method] = function (...args) {
            me.callParent = (parameters) => base[method](...(parameters ?? []));
            return own.apply(me, args);
        };
    }
    me.field = (name) => me.fields.find((field) => field.name === name);
    me.down = (selector) => me.field(selector.match(/^field\[name=(.+)\]$/)[1]);
    me.load = function (values) {
        for (const [name, value] of Object.entries(me.onSetValues({ ...values }))) {
            me.field(name)?.setValue(value);
        }
    };
    me.submit = function () {
        let values = {};
        for (const field of me.fields) {
            for (const [name, value] of Object.entries(field.submitData())) {
                values[name] = name in values ? [].concat(values[name], value) : value;
            }
        }
        return me.onGetValues(values);
    };
    me.initComponent();
    return me;
}

module.exports = { NAME, SCRIPT, XTYPES, load, page, panel };
