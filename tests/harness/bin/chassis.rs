//! What `ipmi_sim` runs to ask for and change a machine's power: hands its arguments to the test that owns the machine.
//!
//! `ferric-chassis SOCKET get|set NAME [VALUE]`; prints what comes back.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

fn main() -> std::io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut stream = UnixStream::connect(arguments.next().unwrap_or_default())?;
    stream.write_all((arguments.collect::<Vec<_>>().join(" ") + "\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    print!("{answer}");
    if answer.starts_with("error") { Err(std::io::Error::other(answer)) } else { Ok(()) }
}
