-- First schema. TEXT and BIGINT only, so that PostgreSQL takes the same statements; times are RFC 3339 texts,
-- booleans 0 and 1. A node's whole state is in `document` (JSON); the other columns exist to be searched or to be unique.
CREATE TABLE nodes (
    uuid TEXT PRIMARY KEY,
    position BIGINT NOT NULL UNIQUE,
    name TEXT UNIQUE,
    instance_uuid TEXT UNIQUE,
    provision_state TEXT NOT NULL,
    driver TEXT NOT NULL,
    maintenance BIGINT NOT NULL,
    retired BIGINT NOT NULL,
    fault TEXT,
    resource_class TEXT,
    conductor_group TEXT NOT NULL,
    owner TEXT,
    lessee TEXT,
    shard TEXT,
    parent_node TEXT,
    description TEXT,
    instance_name TEXT,
    -- a power action accepted and not done: found again at start
    power_request TEXT,
    reservation TEXT,
    generation BIGINT NOT NULL,
    document TEXT NOT NULL
);
CREATE INDEX nodes_by_state ON nodes (provision_state);

CREATE TABLE ports (
    uuid TEXT PRIMARY KEY,
    position BIGINT NOT NULL UNIQUE,
    address TEXT NOT NULL UNIQUE,
    node_uuid TEXT NOT NULL REFERENCES nodes (uuid) ON DELETE CASCADE,
    document TEXT NOT NULL
);
CREATE INDEX ports_by_node ON ports (node_uuid);

CREATE TABLE configdrives (
    node_uuid TEXT PRIMARY KEY REFERENCES nodes (uuid) ON DELETE CASCADE,
    body TEXT NOT NULL
);

-- What was about to be done to a machine and is not known to be done.
CREATE TABLE intents (
    node_uuid TEXT NOT NULL REFERENCES nodes (uuid) ON DELETE CASCADE,
    number BIGINT NOT NULL,
    action TEXT NOT NULL,
    opened_at TEXT NOT NULL,
    PRIMARY KEY (node_uuid, number)
);
