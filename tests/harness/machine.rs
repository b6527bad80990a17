//! A machine with a power switch: QEMU is started and ended as power goes on and off, and a reset inside the guest starts
//! it anew with the boot device that is due then.
//!
//! One thread owns the machine; the BMC and the test talk to it through [`Machine`]'s clones.

use crate::process::tail;
pub use crate::qemu::{BootDevice, Bus, DirectBoot, Disk, Firmware, Spec};
use crate::qemu::{End, Qemu};
use crate::wait;
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// What the power switch can be told.
#[derive(Debug)]
enum Order {
    On,
    Off,
    Reset,
    Button,
    Boot(Option<BootDevice>),
    Link(bool),
    Plug(PathBuf, String),
    Look,
    Quit,
}

/// What the machine is doing; a copy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    pub on: bool,
    /// Starts of QEMU so far: power-ons and resets.
    pub boots: u32,
    /// What the next start alone boots from.
    pub next: Option<BootDevice>,
    /// Process number of QEMU.
    pub process: Option<u32>,
    /// Whether the network cable is where it was last told to be.
    pub link: Option<bool>,
    /// The disk that was plugged in last.
    pub plugged: Option<PathBuf>,
    /// Why QEMU ended, if it failed.
    pub failure: Option<String>,
}

/// A handle; the machine ends with the last one.
#[derive(Clone, Debug)]
pub struct Machine {
    switch: Arc<Switch>,
    spec: Arc<Spec>,
}

#[derive(Debug)]
struct Switch {
    orders: Mutex<Sender<(Order, SyncSender<State>)>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What a network boot would fetch, found out at each one; QEMU is then given it directly.
pub type NetworkBoot = Box<dyn Fn() -> Result<DirectBoot> + Send>;

impl Machine {
    /// A machine that is off. Its disks exist already.
    pub fn new(spec: Spec) -> Result<Self> {
        Self::start_owner(spec, None)
    }

    /// A machine whose network boots skip the firmware: they start what `network` gives then. Other boots are as ever.
    pub fn with_network_boot(spec: Spec, network: NetworkBoot) -> Result<Self> {
        Self::start_owner(spec, Some(network))
    }

    fn start_owner(spec: Spec, network: Option<NetworkBoot>) -> Result<Self> {
        let (orders, inbox) = channel();
        let owned = Owned { spec: spec.clone(), network };
        let thread = std::thread::Builder::new()
            .name(format!("power of {}", spec.name))
            .spawn(move || own(&owned, &inbox))
            .context("starting the thread of a machine")?;
        let switch = Switch { orders: Mutex::new(orders), thread: Mutex::new(Some(thread)) };
        Ok(Self { switch: Arc::new(switch), spec: Arc::new(spec) })
    }

    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    pub fn power_on(&self) -> Result<State> {
        self.tell(Order::On)
    }

    pub fn power_off(&self) -> Result<State> {
        self.tell(Order::Off)
    }

    pub fn reset(&self) -> Result<State> {
        self.tell(Order::Reset)
    }

    pub fn press_button(&self) -> Result<State> {
        self.tell(Order::Button)
    }

    /// The device of the next start only; the ones after it boot from disk.
    pub fn boot_next(&self, device: Option<BootDevice>) -> Result<State> {
        self.tell(Order::Boot(device))
    }

    /// Plugs the network cable of a machine that is on in or out.
    pub fn set_link(&self, up: bool) -> Result<()> {
        let told = || Ok((self.tell(Order::Link(up))?.link == Some(up)).then_some(()));
        wait::until("QEMU to take the order for the cable", Duration::from_secs(10), told, String::new)
    }

    /// Plugs one more disk, which exists already, into a machine that is on.
    pub fn plug_disk(&self, path: &Path, serial: &str) -> Result<()> {
        let told = || {
            let order = Order::Plug(path.to_owned(), serial.to_owned());
            Ok((self.tell(order)?.plugged.as_deref() == Some(path)).then_some(()))
        };
        wait::until("QEMU to take the order for the disk", Duration::from_secs(10), told, String::new)
    }

    /// The state now. Asking changes nothing.
    pub fn state(&self) -> Result<State> {
        self.switch.ask(Order::Look)
    }

    pub fn console(&self) -> PathBuf {
        self.spec.console()
    }

    pub fn console_text(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.console()).unwrap_or_default()).into_owned()
    }

    /// Waits until `text` stands on the console after byte `from`; returns where it ends, for the next wait.
    pub fn wait_for_console(&self, text: &str, from: usize, within: Duration) -> Result<usize> {
        wait::until(
            &format!("'{text}' on the console of {}", self.spec.name),
            within,
            || {
                let bytes = fs::read(self.console()).unwrap_or_default();
                let found = find(bytes.get(from..).unwrap_or_default(), text.as_bytes());
                if found.is_none()
                    && let Some(failure) = self.state()?.failure
                {
                    bail!("{failure}");
                }
                Ok(found.map(|at| from + at + text.len()))
            },
            || format!("{:?}; the console ends:\n{}", self.state(), tail(&self.console(), 30)),
        )
    }

    fn tell(&self, order: Order) -> Result<State> {
        self.switch.ask(order)
    }
}

impl Switch {
    fn ask(&self, order: Order) -> Result<State> {
        let (reply, answer) = sync_channel(1);
        let sent = self.orders.lock().map_err(|_| anyhow::anyhow!("a thread panicked"))?.send((order, reply));
        sent.ok().context("the machine's thread has ended")?;
        answer.recv_timeout(Duration::from_secs(30)).context("the machine's thread does not answer")
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        self.ask(Order::Quit).ok();
        if let Some(thread) = self.thread.lock().ok().and_then(|mut t| t.take()) {
            // The BMC's thread may hold the last handle and drop it on the machine's own thread.
            if thread.thread().id() != std::thread::current().id() {
                thread.join().ok();
            }
        }
    }
}

/// What the owning thread starts.
struct Owned {
    spec: Spec,
    network: Option<NetworkBoot>,
}

impl Owned {
    fn start(&self, device: BootDevice) -> Result<Qemu> {
        match &self.network {
            Some(network) if device == BootDevice::Network => {
                let direct = Some(network().context("finding out what the network boots")?);
                Qemu::start(&Spec { direct, ..self.spec.clone() }, device)
            }
            _ => Qemu::start(&self.spec, device),
        }
    }
}

/// The owning thread's life.
fn own(spec: &Owned, inbox: &Receiver<(Order, SyncSender<State>)>) {
    let mut state = State::default();
    let mut qemu: Option<Qemu> = None;
    loop {
        match inbox.recv_timeout(Duration::from_millis(50)) {
            Ok((order, reply)) => {
                watch(spec, &mut qemu, &mut state);
                match order {
                    Order::Quit => {
                        drop(qemu.take());
                        reply.send(state.clone()).ok();
                        return;
                    }
                    Order::On if qemu.is_none() => start(spec, &mut qemu, &mut state),
                    Order::Off => drop(qemu.take()),
                    // A machine that is off stays off.
                    Order::Reset if qemu.is_some() => {
                        drop(qemu.take());
                        start(spec, &mut qemu, &mut state);
                    }
                    Order::Button => {
                        if let Some(qemu) = &mut qemu {
                            qemu.press_button();
                        }
                    }
                    Order::Boot(device) => state.next = device,
                    Order::Link(up) => {
                        let taken = qemu.as_mut().is_some_and(|qemu| qemu.set_link(up));
                        state.link = taken.then_some(up);
                    }
                    Order::Plug(path, serial) => {
                        let taken = qemu.as_mut().is_some_and(|qemu| qemu.plug(&path, &serial));
                        state.plugged = Some(path).filter(|_| taken);
                    }
                    Order::Look | Order::On | Order::Reset => {}
                }
                state.on = qemu.is_some();
                state.process = qemu.as_ref().map(Qemu::id);
                reply.send(state.clone()).ok();
            }
            Err(RecvTimeoutError::Timeout) => watch(spec, &mut qemu, &mut state),
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// Follows what the guest did by itself.
fn watch(spec: &Owned, qemu: &mut Option<Qemu>, state: &mut State) {
    let Some(running) = qemu else { return };
    match running.poll() {
        Ok(None) => return,
        Ok(Some(End::Reset)) => {
            *qemu = None;
            start(spec, qemu, state);
        }
        Ok(Some(End::Off)) => *qemu = None,
        Ok(Some(End::Failed)) => {
            state.failure = Some(format!("QEMU of {} failed: {}", spec.spec.name, tail(running.log(), 5)));
            *qemu = None;
        }
        Err(error) => state.failure = Some(format!("{error:#}")),
    }
    state.on = qemu.is_some();
    state.process = qemu.as_ref().map(Qemu::id);
}

fn start(spec: &Owned, qemu: &mut Option<Qemu>, state: &mut State) {
    let device = state.next.take().unwrap_or(BootDevice::Disk);
    match spec.start(device) {
        Ok(running) => {
            *qemu = Some(running);
            state.boots += 1;
            state.failure = None;
        }
        Err(error) => state.failure = Some(format!("{error:#}")),
    }
}

/// A blank, sparse disk.
pub fn blank_disk(path: &Path, bytes: u64) -> Result<()> {
    let file = fs::File::create(path).with_context(|| format!("making {}", path.display()))?;
    file.set_len(bytes).with_context(|| format!("sizing {}", path.display()))
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len().max(1)).position(|window| window == needle)
}
