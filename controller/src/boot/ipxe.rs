//! Renders the iPXE scripts: the first one, one per machine, and the one that says why a machine is not booted.
//!
//! Pure. All that comes from outside passes [`check_parameters`] or [`console_text`] here, so that no value can add a
//! line or a command to a script. Language: <https://ipxe.org/scripting>.

use crate::boot::BootPlan;
use ferric_common::ids::MacAddress;
use ferric_common::limits::KERNEL_PARAMETERS;
use std::fmt::Write as _;

/// Tries before a machine asks anew what it shall boot.
const TRIES: u32 = 10;
/// Characters of a reason shown on a console.
const REASON: usize = 300;

/// Why kernel parameters are not put into a boot script.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParameterError {
    #[error("kernel parameters are {0} bytes long; at most {KERNEL_PARAMETERS} are passed on")]
    Long(usize),
    #[error("kernel parameters hold the character {0:?}; only printable ASCII is passed on")]
    Character(char),
    #[error("kernel parameters hold '${{', which a boot loader would expand")]
    Expansion,
    #[error("kernel parameters hold '{0}', which a boot loader would take for its own syntax")]
    Syntax(String),
}

/// Checks kernel parameters for use in a boot script and joins them by single spaces. The only way into a script.
///
/// # Errors
/// [`ParameterError`] names what is not passed on.
pub fn check_parameters(text: &str) -> Result<String, ParameterError> {
    if text.len() > KERNEL_PARAMETERS {
        return Err(ParameterError::Long(text.len()));
    }
    if let Some(bad) = text.chars().find(|c| *c != ' ' && !c.is_ascii_graphic()) {
        return Err(ParameterError::Character(bad));
    }
    if text.contains("${") {
        return Err(ParameterError::Expansion);
    }
    let words: Vec<&str> = text.split(' ').filter(|w| !w.is_empty()).collect();
    if let Some(word) = words.iter().find(|w| matches!(**w, "&&" | "||") || w.starts_with('#')) {
        return Err(ParameterError::Syntax((*word).to_owned()));
    }
    Ok(words.join(" "))
}

/// Makes words safe to `echo`: other characters than plain text become `?`, the end is cut.
pub fn console_text(text: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || " .,:;()/_'-+=@%!".contains(c) { c } else { '?' };
    text.chars().take(REASON).map(plain).collect()
}

/// `aa-bb-cc-dd-ee-ff`, as `${mac:hexhyp}` prints.
pub fn hyphened(mac: MacAddress) -> String {
    mac.to_string().replace(':', "-")
}

/// The first script. It asks for the machine's own by each NIC's address; an address that is not known is answered with
/// an error, and the next is tried. `--replace` makes the found script the last word: what it exits with is what the
/// firmware sees.
pub fn first_script(base: &str) -> String {
    format!(
        "#!ipxe
echo Ferric network boot from {base}
set nic:int32 0
:try
isset ${{net${{nic}}/mac}} || goto none
echo Asking for a boot script by ${{net${{nic}}/mac}}
chain --replace --autofree {base}/boot/${{net${{nic}}/mac:hexhyp}} ||
inc nic
goto try
:none
echo No network card of this machine belongs to an enrolled node, or {base} did not answer.
echo Going on with the next boot device.
{TO_DISK}"
    )
}

/// Ends the network boot. UEFI goes to its next boot option only after an error; most BIOS do so after an exit too, but not
/// all, so the disk is started from here.
const TO_DISK: &str = "sleep 3
iseq ${platform} efi && exit 1 ||
sanboot --no-describe --drive 0x80 ||
exit 1
";

/// The script of a machine that has nothing to boot: says why, then goes to its disk.
pub fn no_plan_script(reason: &str) -> String {
    format!("#!ipxe\necho Ferric boots nothing here: {}\n{TO_DISK}", console_text(reason))
}

/// The script of a machine of which nobody can say now whether it boots: it asks again by all its NICs until there is a word.
pub fn ask_again_script(base: &str, why: &str) -> String {
    format!(
        "#!ipxe
echo Ferric cannot say now what this machine boots: {}
:again
echo Asking again in 5 s
sleep 5
chain --replace --autofree {base}/boot.ipxe || goto again
",
        console_text(why)
    )
}

/// The script that boots a ramdisk.
///
/// A fetch that fails is tried again after a pause that grows by a second; after ten tries the machine asks for its script
/// anew, as what it shall boot may have changed, and goes on asking: while it waits here, its node's deadline decides.
/// `BOOTIF=` names the NIC that found this script, in the syslinux form.
///
/// # Errors
/// [`ParameterError`] when the plan's kernel parameters do not fit into a script.
pub fn boot_script(base: &str, mac: MacAddress, plan: &BootPlan) -> Result<String, ParameterError> {
    let parameters = check_parameters(&plan.kernel_parameters)?;
    let node = plan.node;
    let hexhyp = hyphened(mac);
    let files = format!("{base}/boot/node/{node}");
    // Over UEFI the kernel opens each archive by name; over BIOS iPXE joins them in order and the names are idle.
    let mut names = String::from("initrd=ramdisk");
    let mut fetches = format!("initrd --name ramdisk {files}/ramdisk || goto failed\n");
    for index in 0..plan.extra_ramdisks.len() {
        let _ = write!(names, " initrd=extra{index}");
        let _ = writeln!(fetches, "initrd --name extra{index} {files}/extra/{index} || goto failed");
    }
    Ok(format!(
        "#!ipxe
set tries:int32 0
:again
imgfree
echo Ferric boots the ramdisk for node {node}
kernel --name kernel {files}/kernel {parameters} BOOTIF=01-{hexhyp} {names} || goto failed
{fetches}boot || goto failed
:failed
inc tries
iseq ${{tries}} {TRIES} && goto anew ||
echo That was try ${{tries}} of {TRIES}; the next one follows in ${{tries}} s
sleep ${{tries}}
goto again
:anew
imgfree
echo Asking the controller again what to boot
chain --replace --autofree {base}/boot/{hexhyp} ||
sleep 15
goto anew
"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ferric_common::ids::NodeUuid;

    const MAC: MacAddress = MacAddress([0x52, 0x54, 0, 0xab, 2, 3]);

    fn plan(parameters: &str) -> BootPlan {
        BootPlan {
            node: "11111111-2222-3333-4444-555555555555".parse::<NodeUuid>().unwrap(),
            kernel: "/srv/vmlinuz".into(),
            ramdisk: "/srv/initramfs.img".into(),
            extra_ramdisks: vec!["/srv/fw.img".into()],
            kernel_parameters: parameters.into(),
        }
    }

    #[test]
    fn a_machine_boots_its_ramdisk() {
        let script =
            boot_script("http://10.0.0.1:6180", MAC, &plan("console=ttyS0  ipa-api-url=http://x/")).unwrap();
        let node = "http://10.0.0.1:6180/boot/node/11111111-2222-3333-4444-555555555555";
        assert!(script.starts_with("#!ipxe\n"));
        assert!(script.contains(&format!(
            "\nkernel --name kernel {node}/kernel console=ttyS0 ipa-api-url=http://x/ BOOTIF=01-52-54-00-ab-02-03 \
             initrd=ramdisk initrd=extra0 || goto failed\n"
        )));
        assert!(script.contains(&format!("\ninitrd --name ramdisk {node}/ramdisk || goto failed\n")));
        assert!(script.contains(&format!("\ninitrd --name extra0 {node}/extra/0 || goto failed\nboot ||")));
        assert!(script.contains("chain --replace --autofree http://10.0.0.1:6180/boot/52-54-00-ab-02-03 ||"));
    }

    #[test]
    fn every_goto_has_its_label() {
        for script in [
            first_script("http://a:1"),
            no_plan_script("x"),
            ask_again_script("http://a:1", "x"),
            boot_script("http://a:1", MAC, &plan("quiet")).unwrap(),
        ] {
            for (_, rest) in
                script.match_indices("goto ").map(|(at, found)| (at, &script[at + found.len()..]))
            {
                let label = rest.split_whitespace().next().unwrap();
                assert!(script.contains(&format!("\n:{label}\n")), "{label} in\n{script}");
            }
            assert!(!script.contains("{{") && script.is_ascii() && script.ends_with('\n'));
        }
    }

    #[test]
    fn the_first_script_asks_by_each_nic() {
        let script = first_script("http://10.0.0.1:6180");
        assert!(script.contains(
            "chain --replace --autofree http://10.0.0.1:6180/boot/${net${nic}/mac:hexhyp} ||\ninc nic\n"
        ));
        assert!(script.contains("isset ${net${nic}/mac} || goto none\n"));
        assert!(script.contains("iseq ${platform} efi && exit 1 ||\nsanboot"));
    }

    #[test]
    fn parameters_cannot_leave_their_line() {
        let check =
            |text: &str, error: &str| assert_eq!(check_parameters(text).unwrap_err().to_string(), error);
        check("a\nshell", "kernel parameters hold the character '\\n'; only printable ASCII is passed on");
        check("a\tb", "kernel parameters hold the character '\\t'; only printable ASCII is passed on");
        check(
            "caf\u{e9}",
            "kernel parameters hold the character '\u{e9}'; only printable ASCII is passed on",
        );
        check("x=${net0/mac}", "kernel parameters hold '${', which a boot loader would expand");
        check("a || shell", "kernel parameters hold '||', which a boot loader would take for its own syntax");
        check("a #b", "kernel parameters hold '#b', which a boot loader would take for its own syntax");
        check(&"a".repeat(4097), "kernel parameters are 4097 bytes long; at most 4096 are passed on");
        assert_eq!(check_parameters("  a=\"b\"  c ").unwrap(), "a=\"b\" c");
        assert!(boot_script("http://a:1", MAC, &plan("a\nb")).is_err());
    }

    #[test]
    fn a_reason_is_one_harmless_line() {
        let script = no_plan_script("node 'a' is active\nshell ${x} && exit || #");
        assert!(
            script.starts_with(
                "#!ipxe\necho Ferric boots nothing here: node 'a' is active?shell ??x? ?? exit ?? ?\nsleep"
            ),
            "{script}"
        );
        assert_eq!(console_text(&"x".repeat(1000)).len(), 300);
    }
}
