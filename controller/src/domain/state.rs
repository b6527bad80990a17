//! Names of states, events and verbs, exactly as Ironic's API writes them.

use serde::{Deserialize, Serialize};

macro_rules! named {
    ($(#[$doc:meta])* $name:ident { $($variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $name { $(#[serde(rename = $text)] $variant),+ }
        impl $name {
            pub const ALL: &'static [$name] = &[$($name::$variant),+];
            /// The name on the wire.
            pub fn text(self) -> &'static str {
                match self { $($name::$variant => $text),+ }
            }
            /// The member with this name on the wire.
            pub fn from_text(text: &str) -> Option<$name> {
                Self::ALL.iter().copied().find(|s| s.text() == text)
            }
        }
        impl core::fmt::Display for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result { f.write_str(self.text()) }
        }
    };
}

named!(
    /// Where a node stands in its life.
    ProvisionState {
        Enroll = "enroll",
        Verifying = "verifying",
        Manageable = "manageable",
        Available = "available",
        Active = "active",
        Error = "error",
        Cleaning = "cleaning",
        CleanWait = "clean wait",
        CleanHold = "clean hold",
        CleanFailed = "clean failed",
        Inspecting = "inspecting",
        InspectWait = "inspect wait",
        InspectFailed = "inspect failed",
        Adopting = "adopting",
        AdoptFailed = "adopt failed",
        Deploying = "deploying",
        DeployWait = "wait call-back",
        DeployHold = "deploy hold",
        DeployFailed = "deploy failed",
        Deleting = "deleting",
        Rescuing = "rescuing",
        RescueWait = "rescue wait",
        Rescue = "rescue",
        RescueFailed = "rescue failed",
        Unrescuing = "unrescuing",
        UnrescueFailed = "unrescue failed",
        Servicing = "servicing",
        ServiceWait = "service wait",
        ServiceHold = "service hold",
        ServiceFailed = "service failed",
    }
);

named!(
    /// What can happen to a node.
    Event {
        Manage = "manage",
        Provide = "provide",
        Clean = "clean",
        Inspect = "inspect",
        Adopt = "adopt",
        Deploy = "deploy",
        Rebuild = "rebuild",
        Delete = "delete",
        Rescue = "rescue",
        Unrescue = "unrescue",
        Service = "service",
        Abort = "abort",
        Unhold = "unhold",
        Done = "done",
        Fail = "fail",
        Wait = "wait",
        Resume = "resume",
        Hold = "hold",
    }
);

named!(
    /// Whether a machine has power, as last read from its BMC.
    Power { On = "power on", Off = "power off", Error = "error" }
);

named!(
    /// What a client may ask of a machine's power.
    PowerTarget {
        On = "power on",
        Off = "power off",
        Reboot = "rebooting",
        SoftOff = "soft power off",
        SoftReboot = "soft rebooting",
    }
);

impl PowerTarget {
    /// How the target reads while it is being carried out (Ironic shows the end state).
    pub fn shown(self) -> &'static str {
        match self {
            PowerTarget::Reboot | PowerTarget::On | PowerTarget::SoftReboot => "power on",
            PowerTarget::Off | PowerTarget::SoftOff => "power off",
        }
    }
    /// First microversion that knows the target.
    pub fn since(self) -> u16 {
        match self {
            PowerTarget::SoftOff | PowerTarget::SoftReboot => 27,
            _ => 1,
        }
    }
}

/// A verb of `states/provision`: the text, the event, the first microversion that has it.
pub struct Verb {
    pub text: &'static str,
    pub event: Event,
    pub since: u16,
}

pub const VERBS: &[Verb] = &[
    Verb { text: "active", event: Event::Deploy, since: 1 },
    Verb { text: "deploy", event: Event::Deploy, since: 73 },
    Verb { text: "rebuild", event: Event::Rebuild, since: 1 },
    Verb { text: "deleted", event: Event::Delete, since: 1 },
    Verb { text: "undeploy", event: Event::Delete, since: 73 },
    Verb { text: "manage", event: Event::Manage, since: 4 },
    Verb { text: "provide", event: Event::Provide, since: 4 },
    Verb { text: "inspect", event: Event::Inspect, since: 6 },
    Verb { text: "abort", event: Event::Abort, since: 13 },
    Verb { text: "clean", event: Event::Clean, since: 15 },
    Verb { text: "adopt", event: Event::Adopt, since: 17 },
    Verb { text: "rescue", event: Event::Rescue, since: 38 },
    Verb { text: "unrescue", event: Event::Unrescue, since: 38 },
    Verb { text: "unhold", event: Event::Unhold, since: 85 },
    Verb { text: "service", event: Event::Service, since: 87 },
];

/// The verb of this text.
pub fn verb(text: &str) -> Option<&'static Verb> {
    VERBS.iter().find(|v| v.text == text)
}
