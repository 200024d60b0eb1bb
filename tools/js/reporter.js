// What `node --test` (18.15 and later) tells of a run: what failed and why, what the tests print themselves, and at the
// end the counts, in the lines that its TAP ends with. Of what passed nothing is said.

const { inspect } = require('node:util');

// A suite that failed only because of a test in it names nothing new.
const inherited = (error) => error?.failureType === 'subtestsFailed';

const told = ({ name, file, line, details }) => {
    const { error } = details;
    const cause = error?.cause ?? error;
    const place = file ? ` (${file}${line ? `:${line}` : ''})` : '';
    const why = cause instanceof Error ? inspect(cause) : String(cause);
    return `FAILED ${name}${place}\n${why.replace(/^/gm, '    ')}\n`;
};

module.exports = async function* report(events) {
    for await (const { type, data } of events) {
        if (type === 'test:fail' && data.todo === undefined && !inherited(data.details.error)) {
            yield told(data);
        } else if (type === 'test:diagnostic' && data.nesting === 0) {
            yield `# ${data.message}\n`;
        } else if (type === 'test:stdout' || type === 'test:stderr') {
            yield data.message;
        }
    }
};
