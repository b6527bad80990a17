//! Statements on ports.

use super::{Store, StoreError, dialect};
use crate::domain::node::Port;
use ferric_common::ids::{MacAddress, NodeUuid, PortUuid};
use jiff::Timestamp;
use rusqlite::types::Value as Sql;
use rusqlite::{OptionalExtension, params, params_from_iter};

/// Which ports a list holds. Absent parts do not filter.
#[derive(Clone, Debug, Default)]
pub struct PortFilter {
    pub node: Option<NodeUuid>,
    pub addresses: Vec<MacAddress>,
    pub after: Option<PortUuid>,
    pub limit: Option<usize>,
}

fn whole(text: &str) -> Result<Port, StoreError> {
    Ok(serde_json::from_str(text)?)
}

fn duplicate(error: rusqlite::Error, port: &Port) -> StoreError {
    match StoreError::from(error) {
        StoreError::Duplicate { what: "uuid", .. } => {
            StoreError::Duplicate { what: "uuid", value: port.uuid.to_string() }
        }
        StoreError::Duplicate { what, .. } => StoreError::Duplicate { what, value: port.address.to_string() },
        other if other.to_string().contains("FOREIGN KEY") => StoreError::Missing,
        other => other,
    }
}

impl Store {
    /// # Errors
    /// [`StoreError::Duplicate`] where the MAC is taken, [`StoreError::Missing`] where the node is gone.
    pub async fn create_port(&self, port: Port) -> Result<Port, StoreError> {
        self.run(move |t| {
            let sql = dialect(
                "INSERT INTO ports (uuid, address, node_uuid, document, position) \
                 VALUES ($1, $2, $3, $4, (SELECT COALESCE(MAX(position), 0) + 1 FROM ports))",
            );
            let values = params![
                port.uuid.to_string(),
                port.address.to_string(),
                port.node_uuid.to_string(),
                serde_json::to_string(&port)?
            ];
            t.execute(&sql, values).map_err(|e| duplicate(e, &port))?;
            Ok(port)
        })
        .await
    }

    pub async fn port(&self, uuid: PortUuid) -> Result<Option<Port>, StoreError> {
        self.run(move |t| {
            let sql = dialect("SELECT document FROM ports WHERE uuid = $1");
            let text: Option<String> =
                t.query_row(&sql, params![uuid.to_string()], |row| row.get(0)).optional()?;
            text.as_deref().map(whole).transpose()
        })
        .await
    }

    pub async fn ports(&self, filter: PortFilter) -> Result<Vec<Port>, StoreError> {
        self.run(move |t| {
            let mut clauses: Vec<String> = Vec::new();
            let mut values: Vec<Sql> = Vec::new();
            if let Some(node) = filter.node {
                values.push(Sql::Text(node.to_string()));
                clauses.push(format!("node_uuid = ${}", values.len()));
            }
            if !filter.addresses.is_empty() {
                let marks: Vec<String> = filter
                    .addresses
                    .iter()
                    .map(|mac| {
                        values.push(Sql::Text(mac.to_string()));
                        format!("${}", values.len())
                    })
                    .collect();
                clauses.push(format!("address IN ({})", marks.join(", ")));
            }
            if let Some(after) = filter.after {
                values.push(Sql::Text(after.to_string()));
                clauses
                    .push(format!("position > (SELECT position FROM ports WHERE uuid = ${})", values.len()));
            }
            let mut sql = "SELECT document FROM ports".to_string();
            if !clauses.is_empty() {
                sql.push_str(&format!(" WHERE {}", clauses.join(" AND ")));
            }
            sql.push_str(" ORDER BY position");
            if let Some(limit) = filter.limit {
                sql.push_str(&format!(" LIMIT {limit}"));
            }
            let mut statement = t.prepare(&dialect(&sql))?;
            let rows = statement.query_map(params_from_iter(values), |row| row.get::<_, String>(0))?;
            rows.map(|text| whole(&text?)).collect()
        })
        .await
    }

    /// Writes the port.
    ///
    /// # Errors
    /// [`StoreError::Missing`] if it is gone, [`StoreError::Duplicate`].
    pub async fn save_port(&self, mut port: Port) -> Result<Port, StoreError> {
        port.updated_at = Some(Timestamp::now());
        self.run(move |t| {
            let sql = dialect("UPDATE ports SET address = $2, node_uuid = $3, document = $4 WHERE uuid = $1");
            let values = params![
                port.uuid.to_string(),
                port.address.to_string(),
                port.node_uuid.to_string(),
                serde_json::to_string(&port)?
            ];
            match t.execute(&sql, values).map_err(|e| duplicate(e, &port))? {
                0 => Err(StoreError::Missing),
                _ => Ok(port),
            }
        })
        .await
    }

    pub async fn delete_port(&self, uuid: PortUuid) -> Result<(), StoreError> {
        self.run(move |t| {
            match t.execute(&dialect("DELETE FROM ports WHERE uuid = $1"), params![uuid.to_string()])? {
                0 => Err(StoreError::Missing),
                _ => Ok(()),
            }
        })
        .await
    }
}
