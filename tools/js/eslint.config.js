// How JavaScript is written here: as in Proxmox's web interface, on lines of up to 120 characters.

const path = require('node:path');

// tools/install.sh installs the linter there.
const installed = path.join(__dirname, '..', '..', '.cache', 'js');
const js = require(require.resolve('@eslint/js', { paths: [installed] }));

const readonly = (...names) => Object.fromEntries(names.map((name) => [name, 'readonly']));

module.exports = [
    { ignores: ['.cache/', '.venv/', 'artifacts/', 'build/', 'debian/pvedrbdstor/'] },
    { linterOptions: { reportUnusedDisableDirectives: 'error' } },
    js.configs.recommended,
    {
        languageOptions: { ecmaVersion: 2022, sourceType: 'commonjs' },
        rules: {
            'array-callback-return': 'error',
            'arrow-parens': 'error',
            'comma-dangle': ['error', 'always-multiline'],
            'consistent-return': 'error',
            curly: 'error',
            'dot-notation': 'error',
            'eol-last': 'error',
            eqeqeq: 'error',
            'guard-for-in': 'error',
            indent: ['error', 4, { SwitchCase: 1 }],
            'keyword-spacing': 'error',
            'max-len': ['error', { code: 120 }],
            'no-eval': 'error',
            'no-implicit-globals': 'error',
            'no-implied-eval': 'error',
            'no-multiple-empty-lines': ['error', { max: 1 }],
            'no-new-func': 'error',
            'no-shadow': 'error',
            'no-tabs': 'error',
            'no-throw-literal': 'error',
            'no-trailing-spaces': 'error',
            'no-unused-expressions': ['error', { allowShortCircuit: true, allowTernary: true }],
            'no-use-before-define': ['error', { functions: false }],
            'no-var': 'error',
            'object-curly-spacing': ['error', 'always'],
            quotes: ['error', 'single', { avoidEscape: true }],
            semi: 'error',
            'space-before-blocks': 'error',
            'space-infix-ops': 'error',
        },
    },
    {
        // Plain scripts in a page of Proxmox's, or in one of the browser test's.
        files: ['gui/**/*.js', 'tests/browser/**/*.js'],
        languageOptions: {
            sourceType: 'script',
            globals: readonly('Ext', 'PVE', 'Proxmox', 'gettext', 'console', 'document', 'window'),
        },
        rules: {
            // A strict function hides its caller, by which ExtJS's callParent finds the parent's method.
            strict: ['error', 'never'],
            'no-restricted-syntax': [
                'error',
                { selector: 'ClassDeclaration, ClassExpression', message: 'A class is strict; use Ext.define.' },
            ],
        },
    },
    {
        // The test doubles do as Proxmox's own scripts do: define globals, throw strings.
        files: ['tests/browser/**/*.js'],
        languageOptions: { globals: readonly('PVEDouble') },
        rules: {
            'no-implicit-globals': 'off',
            'no-redeclare': ['error', { builtinGlobals: false }],
            'no-throw-literal': 'off',
        },
    },
    {
        // Run by node.
        files: ['tests/gui/**/*.js', 'tools/**/*.js'],
        languageOptions: { globals: readonly('__dirname', 'console', 'module', 'process', 'require') },
    },
];
