//! Debug symbols, in packages of their own: they are of the program that is packed beside them.

use std::path::Path;

use crate::machine::{Machine, VERSION};
use crate::needs_machine;
use crate::support::process::{limited, succeed};

fn readelf(option: &str, file: &Path) -> String {
    let mut command = limited("readelf");
    command.args(["--wide", option]).arg(file);
    succeed(command)
}

fn build_id(file: &Path) -> String {
    let notes = readelf("--notes", file);
    let id = notes.split("Build ID: ").nth(1).and_then(|rest| rest.lines().next());
    id.unwrap_or_else(|| panic!("{}: {notes}", file.display())).to_owned()
}

#[test]
fn symbols_are_apart_and_are_those_of_the_program() {
    needs_machine!("readelf");
    let machine = Machine::boot();
    for (architecture, debians, elfs) in [("x86_64", "amd64", "X86-64"), ("aarch64", "arm64", "AArch64")] {
        let (deb, rpm) = (format!("/srv/deb-{architecture}"), format!("/srv/rpm-{architecture}"));
        for name in ["ociregistry", "ociregistry-dbgsym"] {
            machine.run(&format!("dpkg-deb -x /packages/{name}_{VERSION}-1_{debians}.deb {deb}"));
        }
        for name in ["ociregistry", "ociregistry-debuginfo"] {
            machine.run(&format!(
                "mkdir -p {rpm} && rpm --force-debian --root {rpm} -i --nodeps --noscripts --ignorearch \
                 /packages/{name}-{VERSION}-1.{architecture}.rpm"
            ));
        }
        for root in [deb, rpm] {
            let program = machine.path(&format!("{root}/usr/bin/ociregistry"));
            assert!(readelf("--file-header", &program).contains(elfs), "{root}");
            let id = build_id(&program);
            let (folder, name) = id.split_at(2);
            let symbols = machine.path(&format!("{root}/usr/lib/debug/.build-id/{folder}/{name}.debug"));
            assert_eq!(build_id(&symbols), id, "{root}");
            let (program, symbols) = (readelf("--sections", &program), readelf("--sections", &symbols));
            assert!(program.contains(".gnu_debuglink"), "{root}: {program}");
            for section in [".symtab", ".debug_line"] {
                assert!(symbols.contains(section), "{root}: {symbols}");
                assert!(!program.contains(section), "{root}: {program}");
            }
        }
    }
}
