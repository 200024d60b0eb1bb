// Test doubles for Proxmox VE's manager, of our own making: the storage types, the dialog of Datacenter > Storage, and
// its list. `PVEDouble`, which the page sets, gives the release (what differs is marked) and the cluster's nodes.

Ext.define('PVE.Utils', {
    singleton: true,

    storageSchema: {
        dir: { name: 'Directory', ipanel: 'DirInputPanel', faIcon: 'folder', backups: true },
        lvm: { name: 'LVM', ipanel: 'LVMInputPanel', faIcon: 'folder', backups: false },
        drbd: { name: 'DRBD', hideAdd: true, backups: false },
    },

    format_storage_type: (type) => PVE.Utils.storageSchema[type]?.name ?? type,

    contentTypes: {
        import: 'Import',
        images: 'Disk image',
        backup: 'Backup',
        vztmpl: 'Container template',
        iso: 'ISO image',
        rootdir: 'Container',
        snippets: 'Snippets',
    },

    format_content_types: function (types) {
        let names = types.split(',').map((type) => PVE.Utils.contentTypes[type] || type);
        return names.sort().join(', ');
    },
});

Ext.define('PVE.Parser', {
    singleton: true,
    parsePropertyString: (text) => Object.fromEntries(text.split(',').map((pair) => pair.split('='))),
    printPropertyString: (values) => Object.entries(values).map((pair) => pair.join('=')).join(','),
});

// --- selectors -----------------------------------------------------------------------------------

Ext.define('PVE.form.ContentTypeSelector', {
    extend: 'Proxmox.form.KVComboBox',
    alias: 'widget.pveContentTypeSelector',

    initComponent: function () {
        let types = this.cts || ['images', 'iso', 'vztmpl', 'backup', 'rootdir', 'snippets'];
        this.comboItems = types.map((type) => [type, PVE.Utils.format_content_types(type)]);
        this.callParent();
    },
});

Ext.define('PVE.form.PreallocationSelector', {
    extend: 'Proxmox.form.KVComboBox',
    alias: 'widget.pvePreallocationSelector',
    comboItems: [
        ['__default__', 'Default'],
        ['off', 'Off'],
        ['metadata', 'Metadata'],
        ['falloc', 'Full (posix_fallocate)'],
        ['full', 'Full'],
    ],
});

Ext.define('PVE.form.NodeSelector', {
    extend: 'Proxmox.form.ComboGrid',
    alias: 'widget.pveNodeSelector',
    valueField: 'node',
    displayField: 'node',

    initComponent: function () {
        this.store = Ext.create('Ext.data.ArrayStore', {
            fields: ['node'],
            data: PVEDouble.nodes.map((node) => [node]),
        });
        this.callParent();
    },
});

// --- the dialog ----------------------------------------------------------------------------------

Ext.define('PVE.controller.StorageEdit', {
    extend: 'Ext.app.ViewController',
    alias: 'controller.storageEdit',
    control: {
        'field[name=content]': {
            change: function (field, value) {
                let preallocation = field.up('form').down('field[name=preallocation]');
                if (preallocation) {
                    preallocation.setDisabled(!Ext.Array.from(value).includes('images'));
                }
            },
        },
    },
});

Ext.define('PVE.panel.StorageBase', {
    extend: 'Proxmox.panel.InputPanel',
    controller: 'storageEdit',

    onGetValues: function (values) {
        if (this.isCreate) {
            values.type = this.type;
        } else {
            delete values.storage;
        }
        values.disable = values.enable ? 0 : 1;
        delete values.enable;
        return values;
    },

    initComponent: function () {
        let me = this;
        let prepend = (column, ...fields) => {
            me[column] = [...fields, ...(me[column] || [])];
        };
        prepend('column1', {
            xtype: me.isCreate ? 'textfield' : 'displayfield',
            name: 'storage',
            fieldLabel: 'ID',
            value: me.storageId || '',
            vtype: 'StorageId',
            allowBlank: false,
        });
        prepend(
            'column2',
            { xtype: 'pveNodeSelector', name: 'nodes', fieldLabel: 'Nodes', emptyText: 'All', multiSelect: true },
            { xtype: 'proxmoxcheckbox', name: 'enable', fieldLabel: 'Enable', checked: true, uncheckedValue: 0 },
        );
        if (me.type === 'dir') {
            prepend('advancedColumn1', {
                xtype: 'pvePreallocationSelector',
                name: 'preallocation',
                fieldLabel: 'Preallocation',
                value: '__default__',
                deleteEmpty: !me.isCreate,
            });
            // only in PVE 9
            if (PVEDouble.release >= 9) {
                prepend('advancedColumn2', {
                    xtype: 'proxmoxcheckbox',
                    name: 'snapshot-as-volume-chain',
                    boxLabel: 'Double: volume chain',
                    deleteEmpty: !me.isCreate,
                });
            }
        }
        me.callParent();
    },
});

Ext.define('PVE.storage.DirInputPanel', {
    extend: 'PVE.panel.StorageBase',

    initComponent: function () {
        this.column1 = [
            {
                xtype: this.isCreate ? 'textfield' : 'displayfield',
                name: 'path',
                fieldLabel: 'Directory',
                allowBlank: false,
            },
        ];
        this.callParent();
    },
});

Ext.define('PVE.panel.BackupJobPrune', {
    extend: 'Proxmox.panel.InputPanel',
    xtype: 'pveBackupJobPrunePanel',

    initComponent: function () {
        let me = this;
        let keep = (name) => ({
            xtype: 'proxmoxintegerfield',
            name: `keep-${name}`,
            fieldLabel: `Keep ${name}`,
            minValue: 1,
            deleteEmpty: !me.isCreate,
        });
        me.columnT = [
            { xtype: 'proxmoxcheckbox', name: 'keep-all', boxLabel: 'Keep all backups', checked: me.isCreate },
        ];
        me.column1 = ['last', 'daily', 'monthly'].map(keep);
        me.column2 = ['hourly', 'weekly', 'yearly'].map(keep);
        me.columnB = [
            {
                xtype: 'proxmoxintegerfield',
                name: 'max-protected-backups',
                fieldLabel: 'Maximum Protected',
                minValue: -1,
            },
        ];
        me.callParent();
        let judge = () => {
            let all = me.down('[name=keep-all]').getValue();
            me.query('numberfield[name^=keep-]').forEach((field) => field.setDisabled(all));
        };
        me.down('[name=keep-all]').on('change', judge);
        judge();
        me.on('afterrender', () => me.needMask && me.mask('Backup content type not available for this storage.'));
    },

    onGetValues: function (values) {
        if (this.needMask) {
            return {};
        }
        if (this.isCreate && !this.rendered) {
            return { 'prune-backups': 'keep-all=1' };
        }
        let { 'max-protected-backups': most, ...keep } = values;
        delete keep.delete;
        let retention = PVE.Parser.printPropertyString(keep);
        let gone = [];
        let sent = {};
        for (const [key, value] of [['max-protected-backups', most], ['prune-backups', retention]]) {
            if (value === undefined || value === '') {
                gone.push(key);
            } else {
                sent[key] = value;
            }
        }
        if (PVEDouble.release < 9) {
            gone.push('maxfiles'); // only PVE 8 knows it, and always sends it along
        }
        return this.isCreate ? sent : { ...sent, delete: gone };
    },
});

Ext.define('PVE.storage.BaseEdit', {
    extend: 'Proxmox.window.Edit',
    bodyPadding: 0,

    apiCallDone: function (...args) {
        if (this.ipanel.apiCallDone) {
            this.ipanel.apiCallDone(...args);
        }
    },

    initComponent: function () {
        let me = this;
        me.isCreate = !me.storageId;
        me.method = me.isCreate ? 'POST' : 'PUT';
        me.url = '/api2/extjs/storage' + (me.isCreate ? '' : `/${me.storageId}`);
        me.subject = PVE.Utils.format_storage_type(me.type);
        me.ipanel = Ext.create(me.paneltype, {
            title: 'General',
            type: me.type,
            isCreate: me.isCreate,
            storageId: me.storageId,
        });
        let retention = { xtype: 'pveBackupJobPrunePanel', title: 'Backup Retention', isCreate: me.isCreate };
        let more = (me.ipanel.extraTabs || []).map((tab) => Object.assign(tab, { isCreate: me.isCreate }));
        me.items = {
            xtype: 'tabpanel',
            layout: 'fit',
            bodyPadding: 10,
            items: [me.ipanel, { ...retention, needMask: !me.canDoBackups }, ...more],
        };
        me.callParent();
        if (!me.isCreate) {
            me.load({ success: (response) => me.showSection(response.result.data) });
        }
    },

    showSection: function (section) {
        let values = { ...section, content: (section.content || '').split(','), enable: section.disable ? 0 : 1 };
        if (section.nodes) {
            values.nodes = section.nodes.split(',');
        }
        if (section['prune-backups']) {
            Object.assign(values, PVE.Parser.parsePropertyString(section['prune-backups']));
            delete values['prune-backups'];
        }
        this.query('inputpanel').forEach((panel) => panel.setValues(values));
    },
});

// --- the list ------------------------------------------------------------------------------------

Ext.define('PVE.dc.StorageView', {
    extend: 'Ext.grid.Panel',
    title: 'Datacenter: Storage',

    edit: function (type, id) {
        let schema = PVE.Utils.storageSchema[type];
        if (!schema || !schema.ipanel) {
            throw new Error('no editor registered for storage type: ' + type);
        }
        Ext.create('PVE.storage.BaseEdit', {
            paneltype: 'PVE.storage.' + schema.ipanel,
            type: type,
            storageId: id,
            canDoBackups: schema.backups,
            autoShow: true,
            listeners: { destroy: () => this.getStore().load() },
        });
    },

    initComponent: function () {
        let me = this;
        me.store = Ext.create('Ext.data.Store', {
            fields: ['storage', 'type', 'content', 'path'],
            autoLoad: true,
            proxy: { type: 'ajax', url: '/api2/json/storage', noCache: false, reader: { rootProperty: 'data' } },
        });
        me.columns = [
            { header: 'ID', dataIndex: 'storage', flex: 1 },
            { header: 'Type', dataIndex: 'type', flex: 1, renderer: PVE.Utils.format_storage_type },
            { header: 'Content', dataIndex: 'content', flex: 2, renderer: PVE.Utils.format_content_types },
            { header: 'Path/Target', dataIndex: 'path', flex: 2 },
        ];
        let menu = Object.entries(PVE.Utils.storageSchema)
            .filter(([, schema]) => !schema.hideAdd)
            .map(([type, schema]) => ({
                text: schema.name,
                iconCls: `fa fa-fw fa-${schema.faIcon}`,
                handler: () => me.edit(type),
            }));
        let chosen = () => me.getSelection()[0];
        me.tbar = [
            { text: 'Add', itemId: 'add', menu: menu },
            { text: 'Edit', itemId: 'edit', handler: () => me.edit(chosen().get('type'), chosen().get('storage')) },
        ];
        me.callParent();
    },
});

Ext.define('PVE.StdWorkspace', {
    extend: 'Ext.container.Viewport',
    layout: 'fit',
    items: [{ xclass: 'PVE.dc.StorageView' }],

    initComponent: function () {
        Ext.tip.QuickTipManager.init();
        this.callParent();
    },
});
