// Test doubles for Proxmox's widget toolkit, of our own making: the panel of columns, and the window that submits it.

Ext.define('Proxmox.panel.InputPanel', {
    extend: 'Ext.panel.Panel',
    alias: 'widget.inputpanel',
    border: false,
    hasAdvanced: false,
    showAdvanced: false,
    layout: { type: 'vbox', align: 'stretch' },
    defaultType: 'container',

    onGetValues: (values) => values,
    onSetValues: (values) => values,

    getValues: function () {
        let values = {};
        this.query('[isFormField]').forEach((field) => {
            Proxmox.Utils.assemble_field_data(values, field.getSubmitData());
        });
        return this.onGetValues(values);
    },

    setValues: function (values) {
        for (const [name, value] of Object.entries(this.onSetValues(values))) {
            for (const field of this.query(`[isFormField][name=${name}]`)) {
                field.setValue(value);
                field.resetOriginalValue();
            }
        }
    },

    setAdvancedVisible: function (visible) {
        if (this.hasAdvanced) {
            this.getComponent('advancedContainer').setVisible(!!visible);
        }
    },

    initComponent: function () {
        let me = this;
        let rows = function (top, left, right, bottom) {
            let row = (items) => ({ layout: 'anchor', padding: '0 0 10 0', items: items });
            let column = (items, padding) => ({ flex: 1, layout: 'anchor', padding: padding, items: items || [] });
            let columns = [column(left, '0 10 0 0'), column(right, '0 0 0 10')];
            return [
                ...(top ? [row(top)] : []),
                ...(left || right ? [{ layout: 'hbox', defaultType: 'container', items: columns }] : []),
                ...(bottom ? [row(bottom)] : []),
            ];
        };
        if (!me.items && !me.column1) {
            throw new Error('Double: a panel has items or column1');
        }
        let items = me.items ? rows(me.items) : rows(me.columnT, me.column1, me.column2, me.columnB);
        let advanced = me.advancedItems
            ? rows(me.advancedItems)
            : rows(null, me.advancedColumn1, me.advancedColumn2, me.advancedColumnB);
        me.hasAdvanced = advanced.length > 0;
        if (me.hasAdvanced) {
            items.push({
                itemId: 'advancedContainer',
                defaultType: 'container',
                hidden: !me.showAdvanced,
                items: [{ xtype: 'box', autoEl: 'hr' }, ...advanced],
            });
        }
        me.items = items;
        me.callParent();
    },
});

Ext.define('Proxmox.window.Edit', {
    extend: 'Ext.window.Window',
    alias: 'widget.proxmoxWindowEdit',
    resizable: false,
    modal: true,
    border: false,
    defaultFocus: 'field:focusable[disabled=false][hidden=false]',

    initComponent: function () {
        let me = this;
        me.formPanel = Ext.create('Ext.form.Panel', {
            trackResetOnLoad: true,
            bodyPadding: me.bodyPadding ?? 10,
            border: false,
            fieldDefaults: { labelWidth: 100, anchor: '100%' },
            items: me.items,
        });
        let panel = me.formPanel.down('inputpanel');
        me.submitButton = Ext.create('Ext.Button', {
            itemId: 'submit',
            text: me.isCreate ? 'Add' : 'OK',
            disabled: !me.isCreate,
            handler: () => me.submit(),
        });
        me.title = `${me.isCreate ? 'Add' : 'Edit'}: ${me.subject}`;
        me.width = 600;
        me.items = [me.formPanel];
        me.buttons = [me.submitButton];
        if (panel.hasAdvanced) {
            me.buttons.unshift({
                xtype: 'proxmoxcheckbox',
                itemId: 'advancedcb',
                boxLabel: 'Advanced',
                boxLabelAlign: 'before',
                submitValue: false,
                listeners: { change: (box, value) => panel.setAdvancedVisible(value) },
            });
        }
        let form = me.formPanel.getForm();
        let judge = () => me.submitButton.setDisabled(!form.isValid() || !(me.isCreate || form.isDirty()));
        form.on({ dirtychange: judge, validitychange: judge });
        me.callParent();
        me.query('#advancedContainer field').forEach((field) => {
            field.on('validitychange', (_field, valid) => valid || panel.setAdvancedVisible(true));
        });
        me.on('afterlayout', () => {
            me.suspendLayout = true;
            form.isValid();
            me.suspendLayout = false;
        });
    },

    complain: (response, then) =>
        Ext.Msg.show({
            title: 'Error',
            message: response.htmlStatus,
            icon: Ext.Msg.ERROR,
            buttons: Ext.Msg.OK,
            fn: then,
        }),

    submit: function () {
        let me = this;
        let values = {};
        me.query('inputpanel').forEach((panel) => Proxmox.Utils.assemble_field_data(values, panel.getValues()));
        for (const [key, value] of Object.entries(values)) {
            values[key] = Ext.isArray(value) && !value.length ? '' : value;
        }
        if (me.digest) {
            values.digest = me.digest;
        }
        Proxmox.Utils.API2Request({
            url: me.url,
            method: me.method,
            params: values,
            waitMsgTarget: me,
            failure: function (response) {
                me.apiCallDone(false, response);
                me.formPanel.getForm().markInvalid(response.result.errors || {});
                me.complain(response);
            },
            success: function (response) {
                me.apiCallDone(true, response);
                me.close();
            },
        });
    },

    load: function (options) {
        let me = this;
        Proxmox.Utils.API2Request({
            url: me.url,
            method: 'GET',
            waitMsgTarget: me,
            failure: (response) => me.complain(response, () => me.close()),
            success: function (response) {
                me.formPanel.getForm().clearInvalid();
                me.digest = response.result.data.digest;
                options.success(response);
            },
        });
    },
});
