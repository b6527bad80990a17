//! The service is killed at every moment of a deployment at which a kill could make a difference, and again and again at
//! random ones; each time the same machine comes out of it, booted once into the ramdisk and written once.

use crate::machine::{Behaviour, Machine};
use crate::rig::{Images, Rig, raw_call};
use ferric_controller::conductor::Settings;
use ferric_controller::drivers::PowerState;
use ferric_controller::store::Store;
use proptest::strategy::{Strategy as _, ValueTree as _};
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// Deployments at the same time; each waits more than it works.
const AT_ONCE: usize = 12;
/// The longest that one may take with all its kills.
const LONGEST: Duration = Duration::from_secs(30);
/// Deployments that are killed at random.
const RANDOM: usize = 60;

fn quick(settings: &mut Settings) {
    settings.patience.commands = Duration::from_millis(20);
    settings.patience.power_look = Duration::from_millis(10);
    settings.patience.retry = Duration::from_millis(20);
    // The longer way: with a boot entry.
    settings.default_boot_mode = "uefi".into();
}

/// A node that is ready, its machine, and a client that wants it deployed.
struct Trial {
    rig: Rig,
    machine: Machine,
}

impl Trial {
    async fn new() -> Trial {
        let rig = Rig::with(quick, Images::default());
        rig.available().await;
        rig.fuse().take_seen();
        let behaviour = Behaviour {
            write_time: Duration::from_millis(100),
            // As rare as the real one's, so that the moments are the same each time.
            beat: Duration::from_secs(10),
            ..Behaviour::default()
        };
        let machine = Machine::new(&rig, behaviour);
        Trial { rig, machine }
    }

    /// Asks once more where the node shows that the service never took the request.
    fn ask(&self) {
        let address = self.rig.address;
        tokio::spawn(async move {
            let headers = [("X-OpenStack-Ironic-API-Version", "1.115"), ("content-type", "application/json")];
            let node = raw_call(address, "GET", "/v1/nodes/n1", &headers, Vec::new()).await;
            if node.is_ok_and(|node| node.body["provision_state"] == "available") {
                let body = json!({"target": "active"}).to_string().into_bytes();
                // The answer may be lost with the service.
                let _ = raw_call(address, "PUT", "/v1/nodes/n1/states/provision", &headers, body).await;
            }
        });
    }

    /// Deploys; in its nth life the service is killed at the `kills[n]`th moment. What was wrong on the way.
    async fn deploy(&mut self, kills: &[usize]) -> Vec<String> {
        let mut faults = Vec::new();
        let mut kills = kills.iter().copied();
        if let Some(at) = kills.next() {
            self.rig.fuse().arm(at);
        }
        self.ask();
        let fuse = self.rig.fuse().clone();
        loop {
            tokio::select! {
                () = fuse.burnt() => {}
                () = settled(self.rig.address) => return faults,
            }
            self.rig.kill();
            self.rig.bmc.forget_one_boot();
            let moment = fuse.take_seen().pop().unwrap_or_default();
            if self.without_intent(&moment).await {
                faults.push(format!("{moment} without an intent"));
            }
            if let Some(at) = kills.next() {
                fuse.arm(at);
            }
            self.rig.start();
            self.ask();
        }
    }

    /// A machine is touched under an open intent only.
    async fn without_intent(&self, moment: &str) -> bool {
        let touches = ["power", "boot", "execute"].iter().any(|word| moment.contains(word));
        if !touches {
            return false;
        }
        let store = Store::open(&self.rig.settings.state_dir.join("db")).unwrap();
        let uuid = store.node_by_name("n1").await.unwrap().unwrap().uuid;
        store.intents(uuid).await.unwrap().is_empty()
    }

    /// What is not as it must be in the end.
    async fn faults(&self) -> Vec<String> {
        let node = self.rig.node().await;
        let (story, log) = (&self.machine.story, self.rig.bmc.log.lock().unwrap().clone());
        let counts = ["deploy.execute_deploy_step", "image.install_bootloader"].map(|name| story.count(name));
        let from_network = story.boots_from_network.load(Ordering::SeqCst);
        let locked_out = story.locked_out.load(Ordering::SeqCst);
        let booted = self.rig.bmc.power_now() == PowerState::On && self.machine.runs_the_image().await;
        [
            (node["provision_state"] == "active", format!("it is {}", node["provision_state"])),
            (node["last_error"].is_null(), format!("last_error is {}", node["last_error"])),
            (booted, "the machine does not run the image".to_string()),
            (from_network == 1, format!("the ramdisk was booted {from_network} times")),
            (counts == [1, 1], format!("image and boot entry were written {counts:?} times")),
            (locked_out == 0, "a boot lost its token".to_string()),
            (!log.contains(&"power Off".to_string()), format!("power was cut under the agent: {log:?}")),
        ]
        .into_iter()
        .filter(|(good, _)| !good)
        .map(|(_, fault)| fault)
        .collect()
    }
}

/// The node as the API shows it, whatever it says.
async fn shown(address: SocketAddr) -> Value {
    let headers = [("X-OpenStack-Ironic-API-Version", "1.115")];
    let answer = raw_call(address, "GET", "/v1/nodes/n1", &headers, Vec::new()).await;
    answer.map_or(Value::Null, |answer| answer.body)
}

/// Waits until nothing is going on any more, so that no fuse that is left will burn.
async fn settled(address: SocketAddr) {
    loop {
        let node = shown(address).await;
        let ended = ["active", "deploy failed"].iter().any(|state| node["provision_state"] == *state);
        if ended && node["reservation"].is_null() {
            return;
        }
        sleep(Duration::from_millis(5)).await;
    }
}

/// One deployment with its kills; what went wrong.
async fn try_out(kills: &[usize]) -> Vec<String> {
    let mut trial = Trial::new().await;
    let mut faults = match timeout(LONGEST, trial.deploy(kills)).await {
        Ok(faults) => faults,
        Err(_) => {
            let (node, log) = (shown(trial.rig.address).await, trial.rig.bmc.log.lock().unwrap().clone());
            let (state, step) = (&node["provision_state"], &node["deploy_step"]["step"]);
            let wait = &node["driver_internal_info"]["wait"]["reason"];
            return vec![format!("after {LONGEST:?} it is {state} {step}, waiting for {wait}; {log:?}")];
        }
    };
    faults.extend(trial.faults().await);
    faults
}

/// Runs deployments, some at a time; all that went wrong is told at the end.
async fn try_all(plans: impl IntoIterator<Item = (String, Vec<usize>)>) {
    let room = Arc::new(Semaphore::new(AT_ONCE));
    let mut running = JoinSet::new();
    for (what, kills) in plans {
        let permit = room.clone().acquire_owned().await.unwrap();
        running.spawn(async move {
            let faults = try_out(&kills).await;
            drop(permit);
            (what, faults)
        });
    }
    let mut told: Vec<String> = Vec::new();
    while let Some(ended) = running.join_next().await {
        let (what, faults) = ended.unwrap();
        told.extend(faults.into_iter().map(|fault| format!("{what}: {fault}")));
    }
    told.sort();
    assert!(told.is_empty(), "{} faults:\n{}", told.len(), told.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_at_any_moment_of_a_deployment_changes_nothing_in_the_end() {
    let mut untouched = Trial::new().await;
    assert_eq!(untouched.deploy(&[]).await, [""; 0]);
    assert_eq!(untouched.faults().await, [""; 0]);
    let moments = untouched.rig.fuse().take_seen();
    for kind in
        ["Before a commit", "After a commit", "before power On", "after boot Pxe", "a late standby.power_off"]
    {
        assert!(moments.iter().any(|m| m == kind), "{kind} is not among {moments:?}");
    }
    let plan = |(moment, at): (&String, usize)| (format!("killed at {at:2}, {moment}"), vec![at]);
    try_all(moments.iter().zip(1..).map(plan)).await;
    println!("{} moments", moments.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_at_random_moments_again_and_again_change_nothing_in_the_end() {
    let seed = match std::env::var("FERRIC_SEED") {
        Ok(text) => text.parse().expect("FERRIC_SEED is a number"),
        Err(_) => u64::from(std::process::id()),
    };
    println!("FERRIC_SEED={seed}");
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let random = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(proptest::test_runner::Config::default(), random);
    let lives = proptest::collection::vec(1usize..14, 2..16);
    let plans: Vec<Vec<usize>> =
        (0..RANDOM).map(|_| lives.new_tree(&mut runner).unwrap().current()).collect();
    let name = |kills: &[usize]| format!("FERRIC_SEED={seed}, lives of {kills:?} moments");
    try_all(plans.into_iter().map(|kills| (name(&kills), kills))).await;
}
