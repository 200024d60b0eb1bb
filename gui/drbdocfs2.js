// The dialog that adds and edits storages of type 'drbdocfs2' in the web interface of Proxmox VE 8 and 9. It knows the
// interface's own building blocks and what the storage plugin accepts; whether the mirror is there, the plugin says.
//
// Not strict: ExtJS finds a method's parent by its caller, which strict code hides. Nothing here may throw into the
// page: where something is missing, or where PVE knows the type by itself, this file does nothing.
(function () {
    const TYPE = 'drbdocfs2';
    const PANEL = 'DRBDOCFS2InputPanel';
    const CLASS = `PVE.storage.${PANEL}`;
    const BASE = 'PVE.panel.StorageBase';
    const XTYPES = [
        'textfield',
        'displayfield',
        'proxmoxtextfield',
        'proxmoxintegerfield',
        'proxmoxKVComboBox',
        'pveContentTypeSelector',
        'pvePreallocationSelector',
    ];

    // What is not there of all that the panel needs; undefined when nothing is. Throws on another ExtJS.
    let findMissing = function () {
        if (typeof Ext === 'undefined' || typeof Ext.define !== 'function') {
            return 'Ext';
        }
        if (typeof gettext !== 'function') {
            return 'gettext';
        }
        if (typeof PVE === 'undefined' || !PVE.Utils?.storageSchema) {
            return 'PVE.Utils.storageSchema';
        }
        if (!Ext.ClassManager.get(BASE)) {
            return BASE;
        }
        return XTYPES.find((xtype) => !Ext.ClassManager.getByAlias(`widget.${xtype}`));
    };

    // The rules are the plugin's, and tests/gui/agreed.json proves it of both. Each check answers true, or what to
    // write instead; the answers are shown as HTML, so what the user wrote does not come back in them. A field that is
    // left empty is not theirs to judge.

    let nameTheResource = () => gettext("Write the resource's name; 'drbdadm sh-resources' lists them.");

    let checkResource = function (value) {
        let name = value.trim();
        if (/^(?:all|[0-9]+)$/.test(name)) {
            return gettext("Write another name: DRBD's programs take this one for something else.");
        }
        if (value === '' || /^[a-zA-Z0-9][-a-zA-Z0-9_.+]{0,127}$/.test(name)) {
            return true;
        }
        if (name === '') {
            return nameTheResource();
        }
        if (!/^[a-zA-Z0-9]/.test(name)) {
            return gettext('Begin with a letter or a digit.');
        }
        if (/[^-a-zA-Z0-9_.+]/.test(name)) {
            return gettext('Use letters, digits and - _ . + only.');
        }
        return gettext('Use 128 characters at most.');
    };

    let checkPath = function (value) {
        let path = value.trim();
        if (value === '') {
            return true;
        }
        if (!path.startsWith('/')) {
            return gettext("Write the whole path, beginning with '/'.");
        }
        if (/[^-/a-zA-Z0-9_.@]/.test(path)) {
            return gettext('Use letters, digits and - _ . @ / only.');
        }
        let parts = path.split('/').filter((part) => part !== '' && part !== '.');
        if (parts.length === 0) {
            return gettext("Write a folder of its own, not the root folder '/'.");
        }
        if (parts.includes('..')) {
            return gettext("Write the path without '..'.");
        }
        return true;
    };

    let checkVolume = function (value) {
        let number = String(value).trim();
        if (value === '' || (/^[0-9]+$/.test(number) && Number(number) <= 65535)) {
            return true;
        }
        return gettext('Write a whole number from 0 to 65535, or nothing for volume 0.');
    };

    // The UUID as the plugin wants it. mounted.ocfs2 and tunefs.ocfs2 show it so, blkid in lower case with hyphens.
    let plainUUID = (value) => value.trim().replace(/-/g, '').toUpperCase();

    let checkUUID = function (value) {
        if (value === '' || /^[0-9A-F]{32}$/.test(plainUUID(value))) {
            return true;
        }
        return gettext("Write the 32 hexadecimal digits that 'mounted.ocfs2 -d' shows, or nothing.");
    };

    // An older PVE 8 has no 'import'.
    let contentTypes = function () {
        let known = ['images', 'rootdir', 'iso', 'vztmpl', 'backup', 'snippets'];
        return PVE.Utils.contentTypes?.import ? [...known, 'import'] : known;
    };

    let basicFields = (isCreate) => [
        {
            xtype: 'proxmoxtextfield',
            name: 'drbdocfs2-resource',
            fieldLabel: gettext('DRBD Resource'),
            allowBlank: false,
            blankText: nameTheResource(),
            validator: checkResource,
        },
        {
            xtype: isCreate ? 'textfield' : 'displayfield',
            name: 'path',
            value: '',
            fieldLabel: gettext('Mount Point'),
            allowBlank: false,
            blankText: gettext('Write where the file system is, or is to be, mounted on every node.'),
            htmlEncode: true,
            validator: checkPath,
        },
        {
            xtype: 'pveContentTypeSelector',
            name: 'content',
            cts: contentTypes(),
            value: ['images', 'rootdir'],
            multiSelect: true,
            fieldLabel: gettext('Content'),
            allowBlank: false,
        },
    ];

    let hints = (isCreate) => [
        {
            xtype: 'displayfield',
            userCls: 'pmx-hint',
            value: isCreate
                ? gettext(
                    'Must exist first: the DRBD resource, dual-primary, with an OCFS2 file system on it,'
                    + ' and the package pvedrbdstor on every node.',
                )
                : gettext('Resource, volume and UUID say which file system is used. Changing them moves no data.'),
        },
        {
            xtype: 'displayfield',
            value: gettext("Manual: 'man drbdocfs2' on the nodes, and /usr/share/doc/pvedrbdstor there."),
        },
    ];

    let volumeAndFormat = (isCreate) => [
        {
            xtype: 'proxmoxintegerfield',
            name: 'drbdocfs2-volume',
            fieldLabel: gettext('DRBD Volume'),
            emptyText: gettext('Default') + ' (0)',
            minValue: 0,
            allowBlank: true,
            deleteEmpty: !isCreate,
            validator: checkVolume,
        },
        {
            xtype: 'proxmoxKVComboBox',
            name: 'format',
            fieldLabel: gettext('Default Format'),
            comboItems: [
                ['__default__', gettext('Default') + ' (raw)'],
                ['raw', 'raw'],
                ['qcow2', 'qcow2'],
            ],
            allowBlank: false,
            deleteEmpty: !isCreate,
            value: '__default__',
        },
    ];

    // PVE's base panel adds this one to its own types alone.
    let preallocation = (isCreate) => [
        {
            xtype: 'pvePreallocationSelector',
            name: 'preallocation',
            fieldLabel: gettext('Preallocation'),
            allowBlank: false,
            deleteEmpty: !isCreate,
            value: '__default__',
        },
    ];

    let uuid = (isCreate) => [
        {
            xtype: 'proxmoxtextfield',
            name: 'drbdocfs2-uuid',
            fieldLabel: gettext('OCFS2 UUID'),
            emptyText: isCreate
                ? gettext('Recorded by itself if the file system is mounted')
                : gettext('None recorded: any OCFS2 file system on the device is taken'),
            allowBlank: true,
            deleteEmpty: !isCreate,
            validator: checkUUID,
        },
    ];

    // Fills in the mount point PVE itself would choose while the ID is typed, until the user writes one of his own.
    let suggestPath = function (idField, pathField) {
        let suggested = pathField.getValue() ?? '';
        idField.on('change', function (field, id) {
            if ((pathField.getValue() ?? '') !== suggested || !/^[-a-zA-Z0-9_.]*$/.test(id ?? '')) {
                return;
            }
            suggested = id ? `/mnt/pve/${id}` : '';
            pathField.setValue(suggested);
        });
    };

    let definePanel = function () {
        Ext.define(CLASS, {
            extend: BASE,

            onGetValues: function (values) {
                let me = this;

                for (const name of ['path', 'drbdocfs2-resource', 'drbdocfs2-volume']) {
                    if (typeof values[name] === 'string') {
                        values[name] = values[name].trim();
                    }
                }
                if (values['drbdocfs2-uuid']) {
                    values['drbdocfs2-uuid'] = plainUUID(values['drbdocfs2-uuid']);
                }
                if (!me.isCreate) {
                    delete values.path; // fixed: PVE refuses it even unchanged
                }
                return me.callParent([values]);
            },

            // A storage that never named its resource can still be changed otherwise: disabled, for one.
            onSetValues: function (values) {
                let me = this;

                if (!values['drbdocfs2-resource']) {
                    me.down('field[name=drbdocfs2-resource]').setAllowBlank(true);
                }
                return me.callParent([values]);
            },

            initComponent: function () {
                let me = this;

                me.column1 = basicFields(me.isCreate);
                me.columnB = hints(me.isCreate);
                me.advancedColumn1 = volumeAndFormat(me.isCreate);
                me.advancedColumn2 = preallocation(me.isCreate);
                me.advancedColumnB = uuid(me.isCreate);

                me.callParent();

                if (me.isCreate) {
                    suggestPath(me.down('field[name=storage]'), me.down('field[name=path]'));
                }
            },
        });
    };

    try {
        if (typeof PVE !== 'undefined' && PVE.Utils?.storageSchema?.[TYPE]) {
            return;
        }
        let missing = findMissing();
        if (missing) {
            throw new Error(`this Proxmox VE has no '${missing}'`);
        }
        definePanel();
        if (!Ext.ClassManager.get(CLASS)) {
            throw new Error(`'${CLASS}' was not defined`);
        }
        PVE.Utils.storageSchema[TYPE] = {
            name: 'DRBD/OCFS2',
            ipanel: PANEL,
            faIcon: 'building',
            backups: true,
        };
    } catch (err) {
        console.warn(`pvedrbdstor: no dialog for storages of type ${TYPE}: ${err}`);
    }
})();
