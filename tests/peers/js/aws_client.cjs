// The AWS SDK for JavaScript v3 as an app uses it, its default credential chain untouched. The questions are those of
// ../aws_client.py.
const readline = require("node:readline");
const { STSClient, GetCallerIdentityCommand } = require("@aws-sdk/client-sts");

const clients = new Map();

function client(name) {
  if (name === null) return new STSClient();
  if (!clients.has(name)) clients.set(name, new STSClient());
  return clients.get(name);
}

async function answer({ env, kept }) {
  for (const name of Object.keys(process.env)) {
    if (name.startsWith("AWS_")) delete process.env[name];
  }
  Object.assign(process.env, env);
  return { arn: (await client(kept).send(new GetCallerIdentityCommand())).Arn };
}

(async () => {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const said = await answer(JSON.parse(line)).catch((why) => ({ error: `${why.name}: ${why.message}` }));
    console.log(JSON.stringify(said));
  }
})();
