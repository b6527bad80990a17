//! Statements on nodes, config drives and intents.

use super::{Store, StoreError, dialect};
use crate::domain::node::Node;
use ferric_common::ids::NodeUuid;
use jiff::Timestamp;
use rusqlite::types::Value as Sql;
use rusqlite::{OptionalExtension, Row, Transaction, params, params_from_iter};

/// What a save does besides writing the node, in the same transaction.
#[derive(Debug, Default)]
pub struct Changes {
    /// Record that this is about to be done.
    pub open: Option<String>,
    /// The intents up to this number have come to their end.
    pub close: Option<u64>,
    pub drive: DriveChange,
}

#[derive(Debug, Default)]
pub enum DriveChange {
    #[default]
    Keep,
    Set(String),
    Remove,
}

/// Something that was about to be done and is not known to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Intent {
    pub number: u64,
    pub action: String,
}

/// Which nodes a list holds. Absent parts do not filter.
#[derive(Clone, Debug, Default)]
pub struct NodeFilter {
    pub provision_state: Option<String>,
    pub driver: Option<String>,
    pub instance_uuid: Option<String>,
    pub associated: Option<bool>,
    pub maintenance: Option<bool>,
    pub retired: Option<bool>,
    pub fault: Option<String>,
    pub resource_class: Option<String>,
    pub conductor_group: Option<String>,
    pub owner: Option<String>,
    pub lessee: Option<String>,
    /// Owner or lessee.
    pub project: Option<String>,
    pub shards: Vec<String>,
    pub sharded: Option<bool>,
    pub parent_node: Option<String>,
    /// Also nodes that have a parent (hidden otherwise, unless `parent_node` is given).
    pub include_children: bool,
    pub description_contains: Option<String>,
    pub instance_name: Option<String>,
    /// The filter is known to match nothing.
    pub none: bool,
    /// Only nodes after this one, in order of creation.
    pub after: Option<NodeUuid>,
    pub limit: Option<usize>,
    pub descending: bool,
}

const COLUMNS: &str = "document, reservation, generation";

fn read(row: &Row<'_>) -> Result<(String, Option<String>, i64), rusqlite::Error> {
    Ok((row.get(0)?, row.get(1)?, row.get(2)?))
}

fn whole(parts: (String, Option<String>, i64)) -> Result<Node, StoreError> {
    let mut node: Node = serde_json::from_str(&parts.0)?;
    node.reservation = parts.1;
    node.generation = parts.2;
    Ok(node)
}

fn columns(node: &Node) -> Result<Vec<Sql>, StoreError> {
    let text = |t: &Option<String>| t.clone().map_or(Sql::Null, Sql::Text);
    Ok(vec![
        Sql::Text(node.uuid.to_string()),
        text(&node.name),
        text(&node.instance_uuid),
        Sql::Text(node.provision_state.text().to_string()),
        Sql::Text(node.driver.clone()),
        Sql::Integer(node.maintenance.into()),
        Sql::Integer(node.retired.into()),
        text(&node.fault),
        text(&node.resource_class),
        Sql::Text(node.conductor_group.clone()),
        text(&node.owner),
        text(&node.lessee),
        text(&node.shard),
        text(&node.parent_node),
        text(&node.description),
        text(&node.instance_name),
        node.power_request.map_or(Sql::Null, |p| Sql::Text(p.text().to_string())),
        text(&node.reservation),
        Sql::Text(serde_json::to_string(node)?),
    ])
}

fn duplicate(error: rusqlite::Error, node: &Node) -> StoreError {
    match StoreError::from(error) {
        StoreError::Duplicate { what, .. } => {
            let value = match what {
                "name" => node.name.clone(),
                "instance_uuid" => node.instance_uuid.clone(),
                _ => Some(node.uuid.to_string()),
            };
            StoreError::Duplicate { what, value: value.unwrap_or_default() }
        }
        other => other,
    }
}

impl Store {
    /// Stores a new node and returns it with its generation.
    ///
    /// # Errors
    /// [`StoreError::Duplicate`] where name, UUID or instance are taken.
    pub async fn create_node(&self, mut node: Node) -> Result<Node, StoreError> {
        self.run(move |t| {
            node.generation = 1;
            let sql = dialect(
                "INSERT INTO nodes (uuid, name, instance_uuid, provision_state, driver, maintenance, retired, fault, \
                 resource_class, conductor_group, owner, lessee, shard, parent_node, description, instance_name, \
                 power_request, reservation, document, generation, position) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, 1, \
                 (SELECT COALESCE(MAX(position), 0) + 1 FROM nodes))",
            );
            t.execute(&sql, params_from_iter(columns(&node)?)).map_err(|e| duplicate(e, &node))?;
            Ok(node)
        })
        .await
    }

    pub async fn node(&self, uuid: NodeUuid) -> Result<Option<Node>, StoreError> {
        self.run(move |t| by_column(t, "uuid", &uuid.to_string())).await
    }

    pub async fn node_by_name(&self, name: &str) -> Result<Option<Node>, StoreError> {
        let name = name.to_string();
        self.run(move |t| by_column(t, "name", &name)).await
    }

    pub async fn nodes(&self, filter: NodeFilter) -> Result<Vec<Node>, StoreError> {
        self.run(move |t| list(t, &filter)).await
    }

    /// Nodes that a starting controller must look at: not settled, with a power action or an intent open.
    pub async fn unsettled(&self) -> Result<Vec<NodeUuid>, StoreError> {
        self.run(|t| {
            let settled: Vec<String> = crate::domain::state::ProvisionState::ALL
                .iter()
                .filter(|s| s.is_stable())
                .map(|s| format!("'{}'", s.text()))
                .collect();
            let sql = format!(
                "SELECT uuid FROM nodes WHERE provision_state NOT IN ({}) OR power_request IS NOT NULL \
                 OR uuid IN (SELECT node_uuid FROM intents) ORDER BY position",
                settled.join(", ")
            );
            let mut statement = t.prepare(&sql)?;
            let texts = statement.query_map([], |row| row.get::<_, String>(0))?;
            texts
                .map(|text| text?.parse().map_err(|e| StoreError::Failed(format!("a node's uuid: {e}"))))
                .collect()
        })
        .await
    }

    /// Writes the node, if nobody wrote since it was read; its generation becomes the new one. In the same transaction
    /// opens or closes an intent and changes the config drive.
    ///
    /// # Errors
    /// [`StoreError::Lost`] if the writer's turn is over, [`StoreError::Duplicate`].
    pub async fn save(&self, node: &mut Node, changes: Changes) -> Result<(), StoreError> {
        node.updated_at = Some(Timestamp::now());
        if changes.open.is_some() {
            node.flow.last_intent += 1;
        }
        let copy = node.clone();
        let generation = self.run(move |t| save(t, &copy, changes)).await?;
        node.generation = generation;
        Ok(())
    }

    /// Deletes the node with its ports, config drive and intents.
    pub async fn delete_node(&self, uuid: NodeUuid, generation: i64) -> Result<(), StoreError> {
        self.run(move |t| {
            let sql = dialect("DELETE FROM nodes WHERE uuid = $1 AND generation = $2");
            match t.execute(&sql, params![uuid.to_string(), generation])? {
                0 => Err(StoreError::Lost),
                _ => Ok(()),
            }
        })
        .await
    }

    /// The node's config drive: base64 of a gzipped ISO image, or a URL.
    pub async fn configdrive(&self, node: NodeUuid) -> Result<Option<String>, StoreError> {
        self.run(move |t| {
            let sql = dialect("SELECT body FROM configdrives WHERE node_uuid = $1");
            Ok(t.query_row(&sql, params![node.to_string()], |row| row.get(0)).optional()?)
        })
        .await
    }

    pub async fn intents(&self, node: NodeUuid) -> Result<Vec<Intent>, StoreError> {
        self.run(move |t| {
            let sql = dialect("SELECT number, action FROM intents WHERE node_uuid = $1 ORDER BY number");
            let mut statement = t.prepare(&sql)?;
            let rows = statement.query_map(params![node.to_string()], |row| {
                Ok(Intent { number: u64::try_from(row.get::<_, i64>(0)?).unwrap_or(0), action: row.get(1)? })
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// Takes away the reservations that a dead process left behind.
    pub async fn clear_reservations(&self) -> Result<(), StoreError> {
        self.run(|t| {
            t.execute("UPDATE nodes SET reservation = NULL WHERE reservation IS NOT NULL", [])?;
            Ok(())
        })
        .await
    }

    /// Sets or clears the visible reservation without touching the node's document or generation.
    pub async fn reserve(&self, node: NodeUuid, holder: Option<String>) -> Result<(), StoreError> {
        self.run(move |t| {
            let sql = dialect("UPDATE nodes SET reservation = $1 WHERE uuid = $2");
            t.execute(&sql, params![holder, node.to_string()])?;
            Ok(())
        })
        .await
    }
}

fn by_column(t: &Transaction<'_>, column: &'static str, value: &str) -> Result<Option<Node>, StoreError> {
    let sql = dialect(&format!("SELECT {COLUMNS} FROM nodes WHERE {column} = $1"));
    t.query_row(&sql, params![value], read).optional()?.map(whole).transpose()
}

fn save(t: &Transaction<'_>, node: &Node, changes: Changes) -> Result<i64, StoreError> {
    let sql = dialect(
        "UPDATE nodes SET name = $2, instance_uuid = $3, provision_state = $4, driver = $5, maintenance = $6, retired = $7, \
         fault = $8, resource_class = $9, conductor_group = $10, owner = $11, lessee = $12, shard = $13, \
         parent_node = $14, description = $15, instance_name = $16, power_request = $17, reservation = $18, \
         document = $19, generation = generation + 1 WHERE uuid = $1 AND generation = $20 RETURNING generation",
    );
    let mut values = columns(node)?;
    values.push(Sql::Integer(node.generation));
    let generation = t
        .query_row(&sql, params_from_iter(values), |row| row.get::<_, i64>(0))
        .optional()
        .map_err(|e| duplicate(e, node))?
        .ok_or(StoreError::Lost)?;
    let uuid = node.uuid.to_string();
    if let Some(action) = changes.open {
        let number = i64::try_from(node.flow.last_intent).unwrap_or(i64::MAX);
        let sql =
            dialect("INSERT INTO intents (node_uuid, number, action, opened_at) VALUES ($1, $2, $3, $4)");
        t.execute(&sql, params![uuid, number, action, Timestamp::now().to_string()])?;
    }
    if let Some(number) = changes.close {
        let sql = dialect("DELETE FROM intents WHERE node_uuid = $1 AND number <= $2");
        t.execute(&sql, params![uuid, i64::try_from(number).unwrap_or(i64::MAX)])?;
    }
    match changes.drive {
        DriveChange::Keep => {}
        DriveChange::Set(body) => {
            let sql = dialect(
                "INSERT INTO configdrives (node_uuid, body) VALUES ($1, $2) \
                 ON CONFLICT (node_uuid) DO UPDATE SET body = excluded.body",
            );
            t.execute(&sql, params![uuid, body])?;
        }
        DriveChange::Remove => {
            t.execute(&dialect("DELETE FROM configdrives WHERE node_uuid = $1"), params![uuid])?;
        }
    }
    Ok(generation)
}

fn list(t: &Transaction<'_>, filter: &NodeFilter) -> Result<Vec<Node>, StoreError> {
    if filter.none {
        return Ok(Vec::new());
    }
    let mut clauses: Vec<String> = Vec::new();
    let mut values: Vec<Sql> = Vec::new();
    let equal = |column: &str, value: &Option<String>, clauses: &mut Vec<String>, values: &mut Vec<Sql>| {
        if let Some(value) = value {
            values.push(Sql::Text(value.clone()));
            clauses.push(format!("{column} = ${}", values.len()));
        }
    };
    for (column, value) in [
        ("provision_state", &filter.provision_state),
        ("driver", &filter.driver),
        ("instance_uuid", &filter.instance_uuid),
        ("fault", &filter.fault),
        ("resource_class", &filter.resource_class),
        ("conductor_group", &filter.conductor_group),
        ("owner", &filter.owner),
        ("lessee", &filter.lessee),
        ("parent_node", &filter.parent_node),
        ("instance_name", &filter.instance_name),
    ] {
        equal(column, value, &mut clauses, &mut values);
    }
    for (column, wanted) in [("maintenance", filter.maintenance), ("retired", filter.retired)] {
        if let Some(wanted) = wanted {
            clauses.push(format!("{column} = {}", i64::from(wanted)));
        }
    }
    for (column, wanted) in [("instance_uuid", filter.associated), ("shard", filter.sharded)] {
        match wanted {
            Some(true) => clauses.push(format!("{column} IS NOT NULL")),
            Some(false) => clauses.push(format!("{column} IS NULL")),
            None => {}
        }
    }
    if let Some(project) = &filter.project {
        values.push(Sql::Text(project.clone()));
        let n = values.len();
        clauses.push(format!("(owner = ${n} OR lessee = ${n})"));
    }
    if !filter.shards.is_empty() {
        let marks: Vec<String> = filter
            .shards
            .iter()
            .map(|shard| {
                values.push(Sql::Text(shard.clone()));
                format!("${}", values.len())
            })
            .collect();
        clauses.push(format!("shard IN ({})", marks.join(", ")));
    }
    if let Some(part) = &filter.description_contains {
        let escaped = part.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_");
        values.push(Sql::Text(format!("%{escaped}%")));
        clauses.push(format!("description LIKE ${} ESCAPE '\\'", values.len()));
    }
    if !filter.include_children && filter.parent_node.is_none() {
        clauses.push("parent_node IS NULL".to_string());
    }
    let (order, beyond) = if filter.descending { ("DESC", "<") } else { ("ASC", ">") };
    if let Some(after) = filter.after {
        values.push(Sql::Text(after.to_string()));
        clauses
            .push(format!("position {beyond} (SELECT position FROM nodes WHERE uuid = ${})", values.len()));
    }
    let mut sql = format!("SELECT {COLUMNS} FROM nodes");
    if !clauses.is_empty() {
        sql.push_str(&format!(" WHERE {}", clauses.join(" AND ")));
    }
    sql.push_str(&format!(" ORDER BY position {order}"));
    if let Some(limit) = filter.limit {
        sql.push_str(&format!(" LIMIT {limit}"));
    }
    let mut statement = t.prepare(&dialect(&sql))?;
    let rows = statement.query_map(params_from_iter(values), read)?;
    rows.map(|row| whole(row?)).collect()
}
