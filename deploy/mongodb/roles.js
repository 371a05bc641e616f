// The least that the tailer needs, a role for each feature. As an administrator, in mongosh:
//   load("roles.js")
// LibreChat and librechat_tailer are the databases of LibreChat and of the tailer (TAILER_STATE_DATABASE).
const admin = db.getSiblingDB("admin");

// Following LibreChat's changes and reading the turns: the tailer does not start without it.
admin.runCommand({
  "createRole": "librechatTailerTurns",
  "privileges": [
    {"resource": {"db": "LibreChat", "collection": "messages"}, "actions": ["find", "changeStream"]},
    {"resource": {"db": "LibreChat", "collection": "conversations"}, "actions": ["find", "changeStream"]}
  ],
  "roles": []
});

// Billed tokens and cost, and the names of agents. changeStream is for TAILER_STREAM_TRANSACTIONS alone.
admin.runCommand({
  "createRole": "librechatTailerCosts",
  "privileges": [
    {"resource": {"db": "LibreChat", "collection": "transactions"}, "actions": ["find", "changeStream"]},
    {"resource": {"db": "LibreChat", "collection": "agents"}, "actions": ["find"]}
  ],
  "roles": []
});

// E-mail, user name, role and groups: only with TAILER_USER_ID=email or username, a tag or a rule on role or group.
admin.runCommand({
  "createRole": "librechatTailerUsers",
  "privileges": [
    {"resource": {"db": "LibreChat", "collection": "users"}, "actions": ["find"]},
    {"resource": {"db": "LibreChat", "collection": "groups"}, "actions": ["find"]}
  ],
  "roles": []
});

// How far the oplog reaches: the head room in metrics, alerts, status page and doctor.
admin.runCommand({
  "createRole": "librechatTailerOplog",
  "privileges": [
    {"resource": {"cluster": true}, "actions": ["serverStatus"]}
  ],
  "roles": []
});

// Its own database: positions, what was sent, dead letters.
admin.runCommand({
  "createRole": "librechatTailerState",
  "privileges": [],
  "roles": [{"role": "readWrite", "db": "librechat_tailer"}]
});

// The password is asked for. Leave out the roles of features that you do not want.
admin.createUser({
  user: "tailer",
  pwd: passwordPrompt(),
  roles: ["librechatTailerTurns", "librechatTailerCosts", "librechatTailerUsers", "librechatTailerOplog", "librechatTailerState"],
});
