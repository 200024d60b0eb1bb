// Test doubles for Proxmox's widget toolkit, of our own making: the helpers and the fields that a panel uses. They
// behave like the real classes of PVE 8 and 9 in what a panel can notice: xtypes, what is submitted, what is deleted.

// Every error of the page: a test that expects none looks here.
window.pageErrors = [];
window.addEventListener(
    'error',
    (event) => window.pageErrors.push(event.message || `not loaded: ${event.target.src || event.target.href}`),
    true,
);
window.gettext = (text) => text;
window.Proxmox = { UserName: 'root@pam', NodeName: 'pve1', CSRFPreventionToken: 'token' };

Ext.Ajax.setDisableCaching(false);

Proxmox.Utils = {
    defaultText: 'Default',
    noneText: 'none',

    // Adds what one field submits; the same key from two fields (`delete` for one) becomes a list.
    assemble_field_data: function (values, data) {
        for (const [key, value] of Object.entries(data || {})) {
            values[key] = key in values ? [].concat(values[key], value) : value;
        }
    },

    // The text is the server's, made safe for HTML; nothing else is changed.
    extractRequestError: function (result) {
        let text = Ext.htmlEncode(result.message) + (result.status ? ` (${result.status})` : '');
        for (const [key, value] of Object.entries(result.errors || {})) {
            text += `<br><b>${Ext.htmlEncode(key)}</b>: ${Ext.htmlEncode(value)}`;
        }
        return text;
    },

    API2Request: function (request) {
        let mask = (text) => request.waitMsgTarget && request.waitMsgTarget.setLoading(text);
        let refuse = function (response, text) {
            response.htmlStatus = text;
            Ext.callback(request.failure, null, [response, request]);
        };
        mask('Please wait...');
        Ext.Ajax.request({
            url: request.url.startsWith('/api2') ? request.url : '/api2/extjs' + request.url,
            method: request.method,
            params: request.params,
            success: function (response) {
                mask(false);
                response.result = Ext.decode(response.responseText);
                if (response.result.success) {
                    Ext.callback(request.success, null, [response, request]);
                } else {
                    refuse(response, Proxmox.Utils.extractRequestError(response.result));
                }
            },
            failure: function (response) {
                mask(false);
                response.result = {};
                refuse(response, Ext.htmlEncode(`Connection error ${response.status}: ${response.statusText}`));
            },
        });
    },
};

Ext.apply(Ext.form.field.VTypes, {
    StorageId: (value) => /^[a-z](?:[a-z0-9._-]*[a-z0-9])$/i.test(value),
    StorageIdText: 'Double: not the ID of a storage',
});

Ext.define('KeyValue', { extend: 'Ext.data.Model', fields: ['key', 'value'], idProperty: 'key' });

// --- fields --------------------------------------------------------------------------------------

// Every field of the toolkit submits its value, or with `deleteEmpty` its name under `delete`.
Proxmox.submitDouble = function (field, value, empty) {
    if (field.disabled || !field.submitValue) {
        return null;
    }
    if (!empty) {
        return { [field.getName()]: value };
    }
    return field.getDeleteEmpty() ? { delete: field.getName() } : null;
};

Ext.define('Proxmox.form.field.Textfield', {
    extend: 'Ext.form.field.Text',
    alias: 'widget.proxmoxtextfield',
    config: { skipEmptyText: true, deleteEmpty: false, trimValue: false },

    getSubmitValue: function () {
        let value = this.processRawValue(this.getRawValue());
        return this.getTrimValue() ? value.trim() : value;
    },

    getSubmitData: function () {
        let value = this.getSubmitValue();
        return Proxmox.submitDouble(this, value, value === '' && this.getSkipEmptyText());
    },

    setAllowBlank: function (isAllowed) {
        Ext.apply(this, { allowBlank: isAllowed }).validate();
    },
});

Ext.define('Proxmox.form.field.Integer', {
    extend: 'Ext.form.field.Number',
    alias: 'widget.proxmoxintegerfield',
    config: { deleteEmpty: false },
    allowDecimals: false,
    allowExponential: false,

    getSubmitData: function () {
        let value = this.getSubmitValue();
        return Proxmox.submitDouble(this, value, Ext.isEmpty(value));
    },
});

Ext.define('Proxmox.form.Checkbox', {
    extend: 'Ext.form.field.Checkbox',
    alias: 'widget.proxmoxcheckbox',
    config: { defaultValue: undefined, deleteDefaultValue: false, deleteEmpty: false },
    inputValue: '1',

    getSubmitData: function () {
        let value = this.getSubmitValue();
        let isDefault = this.getDeleteDefaultValue() && value === this.getDefaultValue();
        return isDefault ? { delete: this.getName() } : Proxmox.submitDouble(this, value, value === null);
    },

    setRawValue: function (value) {
        return this.callParent([value === 1 ? true : value]);
    },
});

// Beware: `deleteEmpty` is true unless the panel says otherwise, and the API refuses `delete` when a storage is added.
Ext.define('Proxmox.form.KVComboBox', {
    extend: 'Ext.form.field.ComboBox',
    alias: 'widget.proxmoxKVComboBox',
    config: { deleteEmpty: true },
    displayField: 'value',
    valueField: 'key',
    queryMode: 'local',
    editable: false,

    initComponent: function () {
        this.store = Ext.create('Ext.data.ArrayStore', { model: 'KeyValue', data: this.comboItems });
        this.callParent();
    },

    validator: function (text) {
        let known = this.store.collect('value');
        let chosen = !text ? [] : this.multiSelect ? text.split(this.delimiter) : [text];
        let unknown = chosen.filter((one) => !known.includes(one));
        return this.editable || !unknown.length || `Double: no such choice: ${unknown}`;
    },

    getSubmitData: function () {
        let value = this.getSubmitValue();
        return Proxmox.submitDouble(this, value, Ext.isEmpty(value) || value === '__default__');
    },
});

Ext.define('Proxmox.form.ComboGrid', {
    extend: 'Ext.form.field.ComboBox',
    alias: 'widget.proxmoxComboGrid',
    config: { skipEmptyText: false, deleteEmpty: false },
    editable: false,
    queryMode: 'local',

    getSubmitData: function () {
        let value = this.getSubmitValue();
        return Proxmox.submitDouble(this, value, Ext.isEmpty(value) && this.getSkipEmptyText());
    },
});

// Two fields of one name of which one is shown, the other disabled.
Ext.define('Proxmox.form.field.DisplayEdit', {
    extend: 'Ext.form.FieldContainer',
    alias: 'widget.pmxDisplayEditField',
    layout: 'fit',
    defaults: { hideLabel: true },

    initComponent: function () {
        let me = this;
        let common = Ext.apply({}, me.initialConfig);
        ['xtype', 'editConfig', 'displayConfig', 'editable', 'fieldLabel'].forEach((key) => delete common[key]);
        let off = (hidden) => ({ hidden: hidden, disabled: hidden });
        me.items = [
            Ext.apply({ xtype: 'textfield' }, me.editConfig, Ext.apply(off(!me.editable), common)),
            Ext.apply({ xtype: 'displayfield' }, me.displayConfig, Ext.apply(off(!!me.editable), common)),
        ];
        me.callParent();
        [me.editField, me.displayField] = me.items.getRange();
    },

    setValue: function (value) {
        this.items.each((field) => field.setValue(value));
    },
});
