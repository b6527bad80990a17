//! The REST surface: versions, shapes, limits, and that no change is lost.

use crate::rig::{Rig, raw_call};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

#[tokio::test(flavor = "multi_thread")]
async fn documents_are_found_with_and_without_prefix_and_slash() {
    let rig = Rig::new();
    rig.enrol().await;
    let root = rig.get("/").await;
    assert_eq!(root["default_version"]["version"], "1.115");
    assert_eq!(root["versions"].as_array().unwrap().len(), 1);
    for path in ["/v1", "/v1/"] {
        let v1 = rig.get(path).await;
        assert_eq!((&v1["id"], &v1["version"]["min_version"]), (&json!("v1"), &json!("1.1")));
        assert!(v1["version"]["links"][0]["href"].as_str().unwrap().ends_with("/v1/"));
    }
    for path in ["/v1/nodes", "/v1/nodes/", "/nodes", "/nodes/"] {
        assert_eq!(rig.get(path).await["nodes"].as_array().unwrap().len(), 1, "{path}");
    }
    for (method, path, status) in [
        ("POST", "/", 405),
        ("GET", "/v1/nosuch", 404),
        ("GET", "/v1/nodes/n1/nosuch", 404),
        ("PUT", "/v1/nodes", 405),
        ("GET", "/v1/nodes/n1/states/power", 405),
        ("GET", "/v1/nodes/nobody", 404),
        ("GET", "/v1/nodes/n1/inventory", 404),
    ] {
        let answer = rig.call(method, path, "1.115", Value::Null).await;
        assert_eq!(answer.status, status, "{method} {path}");
        assert!(!answer.text().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_carries_the_version_headers() {
    let rig = Rig::new();
    for (headers, status, used) in [
        (vec![], 200, Some("1.1")),
        (vec![("X-OpenStack-Ironic-API-Version", "latest")], 200, Some("1.115")),
        (vec![("OpenStack-API-Version", "baremetal 1.52")], 200, Some("1.52")),
        (vec![("X-OpenStack-Ironic-API-Version", "1.9999")], 406, None),
        (
            vec![("X-OpenStack-Ironic-API-Version", "1.52"), ("OpenStack-API-Version", "baremetal 1.53")],
            406,
            None,
        ),
    ] {
        let answer = raw_call(rig.address, "GET", "/v1/nodes", &headers, Vec::new()).await.unwrap();
        assert_eq!(answer.status, status, "{headers:?}");
        let header = |name: &str| answer.headers.get(name).map(|v| v.to_str().unwrap().to_string());
        assert_eq!(header("x-openstack-ironic-api-minimum-version").as_deref(), Some("1.1"));
        assert_eq!(header("x-openstack-ironic-api-maximum-version").as_deref(), Some("1.115"));
        assert_eq!(header("x-openstack-ironic-api-version").as_deref(), used);
        assert!(header("openstack-request-id").unwrap().starts_with("req-"));
    }
    let missing = rig.call("GET", "/v1/nodes/nobody", "1.115", Value::Null).await;
    assert!(missing.headers.contains_key("x-openstack-ironic-api-version"));
    let inner: Value = serde_json::from_str(missing.body["error_message"].as_str().unwrap()).unwrap();
    assert_eq!(
        inner,
        json!({"faultcode": "Client", "faultstring": "Node nobody could not be found.", "debuginfo": null})
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_shows_what_its_version_knows() {
    let rig = Rig::new();
    let uuid = rig.available().await;
    let path = format!("/v1/nodes/{uuid}");
    for (version, has, has_not) in [
        ("1.1", "driver_info", "driver_internal_info"),
        ("1.5", "name", "clean_step"),
        ("1.30", "network_interface", "deploy_interface"),
        ("1.47", "automated_clean", "protected"),
        ("1.108", "instance_name", "health"),
        ("1.115", "health", "nosuch"),
    ] {
        let node = rig.call("GET", &path, version, Value::Null).await.body;
        assert!(node.get(has).is_some() && node.get(has_not).is_none(), "{version}");
    }
    assert_eq!(rig.call("GET", &path, "1.1", Value::Null).await.body["provision_state"], Value::Null);
    assert_eq!(rig.call("GET", "/v1/nodes/n1", "1.4", Value::Null).await.status, 404, "names since 1.5");
    let list = rig.call("GET", "/v1/nodes", "1.115", Value::Null).await.body;
    let mut columns: Vec<&String> = list["nodes"][0].as_object().unwrap().keys().collect();
    columns.sort();
    assert_eq!(
        columns,
        ["instance_uuid", "links", "maintenance", "name", "power_state", "provision_state", "uuid"]
    );
    for (query, version, status) in [
        ("fields=uuid,owner", "1.115", 200),
        ("fields=uuid,owner", "1.49", 406),
        ("fields=uuid,nosuch", "1.115", 400),
        ("fields=uuid&detail=true", "1.115", 400),
        ("owner=x", "1.49", 406),
        ("nosuch=x", "1.115", 400),
        ("provision_state=available", "1.115", 200),
        ("provision_state=nosuch", "1.115", 400),
        ("maintenance=maybe", "1.115", 400),
        ("limit=0", "1.115", 400),
        ("sort_key=driver_info", "1.115", 400),
        ("sort_key=name&sort_dir=desc", "1.115", 200),
        ("sort_dir=sideways", "1.115", 400),
        ("marker=nobody", "1.115", 404),
    ] {
        let answer = rig.call("GET", &format!("/v1/nodes?{query}"), version, Value::Null).await;
        assert_eq!(answer.status, status, "{query} {version}: {}", answer.body);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_page_by_marker_and_name_the_next_page() {
    let rig = Rig::new();
    for name in ["c", "a", "b"] {
        let node = json!({"driver": "fake-hardware", "name": name});
        assert_eq!(rig.call("POST", "/v1/nodes", "1.115", node).await.status, 201);
    }
    let names = |body: &Value| {
        body["nodes"]
            .as_array()
            .unwrap()
            .iter()
            .map(|n| n["name"].as_str().unwrap().to_string())
            .collect::<String>()
    };
    let first = rig.get("/v1/nodes?limit=2&maintenance=false").await;
    assert_eq!(names(&first), "ca");
    let next = first["next"].as_str().unwrap();
    assert!(next.contains("maintenance=false"), "{next}");
    let rest = rig.get(next.split_once("/v1").map(|(_, p)| format!("/v1{p}")).unwrap().as_str()).await;
    assert_eq!((names(&rest).as_str(), rest.get("next")), ("b", None));
    assert_eq!(names(&rig.get("/v1/nodes?sort_key=name").await), "abc");
    assert_eq!(names(&rig.get("/v1/nodes?sort_key=name&sort_dir=desc&limit=1").await), "c");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_created_is_checked() {
    let rig = Rig::new();
    rig.enrol().await;
    for (body, version, status) in [
        (json!({}), "1.115", 400),
        (json!([]), "1.115", 400),
        (json!({"driver": "nosuch"}), "1.115", 400),
        (json!({"driver": "ipmi", "nosuch": 1}), "1.115", 400),
        (json!({"driver": "fake-hardware", "owner": "x"}), "1.49", 406),
        (json!({"driver": "fake-hardware", "provision_state": "active"}), "1.115", 400),
        (json!({"driver": "fake-hardware", "name": "n1"}), "1.115", 409),
        (json!({"driver": "fake-hardware", "name": "states"}), "1.115", 400),
        (json!({"driver": "fake-hardware", "power_interface": "redfish"}), "1.115", 400),
        (json!({"driver": "fake-hardware", "uuid": "x"}), "1.115", 400),
        (
            json!({"driver": "fake-hardware", "properties": {"cpu_arch": "", "capabilities": "boot_mode:uefi"}}),
            "1.115",
            201,
        ),
        (json!({"driver": "fake-hardware"}), "1.1", 201),
    ] {
        let answer = rig.call("POST", "/v1/nodes", version, body.clone()).await;
        assert_eq!(answer.status, status, "{body} {version}: {}", answer.body);
        if status == 201 {
            let location = answer.headers.get("location").unwrap().to_str().unwrap();
            assert!(location.ends_with(answer.body["uuid"].as_str().unwrap()));
            assert_eq!(
                answer.body["provision_state"],
                if version == "1.1" { Value::Null } else { json!("enroll") }
            );
        }
    }
    let uuid = rig.node().await["uuid"].clone();
    for (body, status) in [
        (json!({"address": "52:54:00:00:00:01", "node_uuid": uuid}), 409),
        (json!({"address": "52-54-00-00-00-09", "node_uuid": uuid}), 400),
        (json!({"address": "52:54:00:00:00:09"}), 400),
        (json!({"address": "52:54:00:00:00:09", "node_uuid": "11111111-2222-4333-8444-555555555555"}), 400),
        (json!({"address": "52:54:00:AB:00:09", "node_ident": "n1"}), 201),
    ] {
        let answer = rig.call("POST", "/v1/ports", "1.115", body.clone()).await;
        assert_eq!(answer.status, status, "{body}: {}", answer.body);
        if status == 201 {
            assert_eq!(answer.body["address"], "52:54:00:ab:00:09");
        }
    }
    let found = rig.get("/v1/ports/detail?address=52:54:00:AB:00:09").await;
    assert_eq!(found["ports"][0]["node_uuid"], uuid);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_patch_is_lost_when_many_come_at_once() {
    let rig = std::sync::Arc::new(Rig::new());
    rig.enrol().await;
    let mut all = tokio::task::JoinSet::new();
    for i in 0..40 {
        let rig = rig.clone();
        all.spawn(async move {
            let patch = json!([{"op": "add", "path": format!("/extra/k{i}"), "value": i}]);
            loop {
                let answer = rig.call("PATCH", "/v1/nodes/n1", "1.115", patch.clone()).await;
                if answer.status == 200 {
                    return;
                }
                assert_eq!(answer.status, 409, "{}", answer.body);
            }
        });
    }
    while let Some(done) = all.join_next().await {
        done.unwrap();
    }
    assert_eq!(rig.node().await["extra"].as_object().unwrap().len(), 40);
}

#[tokio::test(flavor = "multi_thread")]
async fn verbs_obey_state_version_and_keys() {
    let rig = Rig::new();
    let uuid = rig.available().await;
    for (body, version, status, words) in [
        (json!({}), "1.115", 400, "Missing mandatory parameter: target"),
        (json!({"target": "explode"}), "1.115", 400, "can not be performed"),
        (
            json!({"target": "provide"}),
            "1.115",
            400,
            "The requested action \"provide\" can not be performed on node",
        ),
        (json!({"target": "undeploy"}), "1.72", 406, "not acceptable"),
        (json!({"target": "abort"}), "1.12", 406, "not acceptable"),
        (json!({"target": "manage", "configdrive": "QQ=="}), "1.115", 400, "only supported"),
        (json!({"target": "active", "nosuch": 1}), "1.115", 400, "Unexpected arguments: nosuch"),
        (json!({"target": "active", "configdrive": {}}), "1.55", 406, "not acceptable"),
        (json!({"target": "active", "configdrive": "not base64!"}), "1.115", 400, "Invalid configdrive"),
        (json!({"target": "active", "configdrive": {"nosuch": 1}}), "1.115", 400, "Invalid configdrive"),
        (json!({"target": "manage"}), "1.115", 202, ""),
    ] {
        let answer =
            rig.call("PUT", &format!("/v1/nodes/{uuid}/states/provision"), version, body.clone()).await;
        assert_eq!(answer.status, status, "{body}: {}", answer.body);
        assert!(answer.text().contains(words), "{body}: {}", answer.text());
        if status == 202 {
            assert!(answer.headers.get("content-type").is_none());
            assert!(answer.headers.get("location").unwrap().to_str().unwrap().ends_with("/states"));
        }
    }
    let inspect = rig.provision("inspect").await;
    assert_eq!((inspect.status, inspect.text().contains("not supported by this version")), (400, true));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_deleted_only_where_that_is_safe() {
    let rig = Rig::new();
    rig.available().await;
    rig.patch(
        json!([{"op": "add", "path": "/instance_uuid", "value": "11111111-2222-4333-8444-555555555555"}]),
    )
    .await;
    assert_eq!(rig.call("DELETE", "/v1/nodes/n1", "1.115", Value::Null).await.status, 409);
    rig.patch(json!([{"op": "remove", "path": "/instance_uuid"}])).await;
    assert_eq!(rig.call("DELETE", "/v1/nodes/n1", "1.115", Value::Null).await.status, 204);
    assert_eq!(rig.call("DELETE", "/v1/nodes/n1", "1.115", Value::Null).await.status, 404);
    assert!(rig.get("/v1/ports").await["ports"].as_array().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn passwords_are_masked() {
    let rig = Rig::new();
    let node = json!({"driver": "fake-hardware", "name": "n1", "driver_info": {"ipmi_password": "hunter2", "ipmi_address": "10.0.0.1"},
                      "instance_info": {"image_source": "http://u:hunter2@h/i?sig=hunter2", "configdrive": "hunter2"}});
    let answer = rig.call("POST", "/v1/nodes", "1.115", node).await;
    assert!(!answer.body.to_string().contains("hunter2"), "{}", answer.body);
    let node = rig.node().await;
    assert_eq!(node["driver_info"], json!({"ipmi_password": "******", "ipmi_address": "10.0.0.1"}));
    assert!(!node.to_string().contains("hunter2"));
}

/// Sends bytes as they are and returns what comes back until the connection closes.
async fn raw(rig: &Rig, bytes: &[u8]) -> String {
    let mut stream = tokio::net::TcpStream::connect(rig.address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut out = Vec::new();
    let read = stream.read_to_end(&mut out);
    let _ = tokio::time::timeout(std::time::Duration::from_secs(20), read).await;
    String::from_utf8_lossy(&out).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_past_a_limit_are_refused() {
    let rig = Rig::new();
    rig.enrol().await;
    let length = |n: usize, path: &str, method: &str| {
        format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {n}\r\n\r\n")
    };
    let many: String = (0..120).map(|i| format!("h{i}: x\r\n")).collect();
    let long = "a".repeat(17 << 10);
    for (request, status) in [
        (length((1 << 20) + 1, "/v1/nodes", "POST"), "413"),
        (length((64 << 10) + 1, "/v1/heartbeat/x", "POST"), "413"),
        (length((64 << 20) + 1, "/v1/nodes/n1/states/provision", "PUT"), "413"),
        (format!("GET / HTTP/1.1\r\nhost: x\r\n{many}\r\n"), "431"),
        (format!("GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx: {long}\r\n\r\n"), "431"),
        (format!("GET /?{} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", "a".repeat(9000)), "431"),
        (
            "POST /v1/nodes HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{}"
                .to_string(),
            "400",
        ),
        ("GET / HTTP/1.1\r\nhost: x\r\n folded: y\r\n\r\n".to_string(), "400"),
        ("nonsense\r\n\r\n".to_string(), "400"),
    ] {
        let answer = raw(&rig, request.as_bytes()).await;
        let shown: String = request.chars().take(60).collect();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{shown:?} got {answer}");
    }
    let headers = [("X-OpenStack-Ironic-API-Version", "1.115")];
    let deep = format!("{}{}", "[".repeat(30), "]".repeat(30));
    for (body, words) in [
        (deep, "nested deeper"),
        (r#"{"driver": "fake-hardware", "driver": "ipmi"}"#.to_string(), "given twice"),
        ("{".to_string(), "not usable JSON"),
        (String::new(), "no body"),
    ] {
        let answer = raw_call(rig.address, "POST", "/v1/nodes", &headers, body.into_bytes()).await.unwrap();
        assert_eq!(answer.status, 400);
        assert!(answer.text().contains(words), "{}", answer.text());
    }
}
