//! The smallest program that prints: a static ELF file (elf(5)) put together by hand, so that no compiler for another
//! machine is needed. Headers, a few instructions and the text are one segment, which is mapped as it stands.

/// What it runs on, under Linux.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Machine {
    X86_64,
    Aarch64,
}

/// Where the file is mapped: what linkers choose on both.
const BASE: u64 = 0x40_0000;

const FILE_HEADER: u16 = 64;
const PROGRAM_HEADER: u16 = 56;
const HEADERS: u64 = FILE_HEADER as u64 + 2 * PROGRAM_HEADER as u64;

impl Machine {
    pub const ALL: [Self; 2] = [Self::X86_64, Self::Aarch64];

    /// In Go's words, as images have it.
    pub fn architecture(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::Aarch64 => "arm64",
        }
    }

    /// `e_machine`
    fn number(self) -> u16 {
        match self {
            Self::X86_64 => 62,
            Self::Aarch64 => 183,
        }
    }

    /// `write(1, text, length); exit(0)`, with the text right behind it.
    fn code(self, length: u16) -> Vec<u8> {
        match self {
            Self::X86_64 => {
                let [low, high] = length.to_le_bytes();
                let after_lea = 17;
                [
                    &[0xb8, 1, 0, 0, 0][..],                      // mov eax, 1         write
                    &[0xbf, 1, 0, 0, 0],                          // mov edi, 1         standard output
                    &[0x48, 0x8d, 0x35, 33 - after_lea, 0, 0, 0], // lea rsi, [rip + …]
                    &[0xba, low, high, 0, 0],                     // mov edx, length
                    &[0x0f, 0x05],                                // syscall
                    &[0xb8, 60, 0, 0, 0],                         // mov eax, 60        exit
                    &[0x31, 0xff],                                // xor edi, edi
                    &[0x0f, 0x05],                                // syscall
                ]
                .concat()
            }
            Self::Aarch64 => {
                let mov = |register: u32, value: u16| 0xd280_0000 | u32::from(value) << 5 | register;
                let text = 8 * 4 - 4; // from the second of eight instructions
                let adr_x1 = 0x1000_0001 | (text / 4) << 5;
                let svc = 0xd400_0001;
                [
                    mov(0, 1), //      standard output
                    adr_x1,
                    mov(2, length),
                    mov(8, 64), //     write
                    svc,
                    mov(0, 0),
                    mov(8, 93), //     exit
                    svc,
                ]
                .iter()
                .flat_map(|instruction| u32::to_le_bytes(*instruction))
                .collect()
            }
        }
    }
}

/// The whole file. A text of more than 65,535 bytes is cut off.
pub fn elf(machine: Machine, text: &str) -> Vec<u8> {
    let text = &text.as_bytes()[..text.len().min(usize::from(u16::MAX))];
    let code = machine.code(text.len() as u16);
    let size = HEADERS + (code.len() + text.len()) as u64;
    let mut file = Vec::new();
    file.extend([0x7f, b'E', b'L', b'F', 2, 1, 1, 0]); // 64 bits, little endian, version, System V
    file.extend([0; 8]);
    put16(&mut file, &[2, machine.number()]); // an executable
    put32(&mut file, &[1]);
    put64(&mut file, &[BASE + HEADERS, u64::from(FILE_HEADER), 0]); // entry; program headers, no sections
    put32(&mut file, &[0]);
    put16(&mut file, &[FILE_HEADER, PROGRAM_HEADER, 2, 0, 0, 0]);
    // PT_LOAD, readable and executable: all of the file, for pages of up to 64 KiB.
    put32(&mut file, &[1, 5]);
    put64(&mut file, &[0, BASE, BASE, size, size, 0x1_0000]);
    // PT_GNU_STACK, readable and writable: no code on the stack.
    put32(&mut file, &[0x6474_e551, 6]);
    put64(&mut file, &[0, 0, 0, 0, 0, 16]);
    file.extend(code);
    file.extend(text);
    file
}

fn put16(file: &mut Vec<u8>, values: &[u16]) {
    file.extend(values.iter().flat_map(|value| value.to_le_bytes()));
}

fn put32(file: &mut Vec<u8>, values: &[u32]) {
    file.extend(values.iter().flat_map(|value| value.to_le_bytes()));
}

fn put64(file: &mut Vec<u8>, values: &[u64]) {
    file.extend(values.iter().flat_map(|value| value.to_le_bytes()));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// That it runs is tested where there are runtimes and emulators: tests/hello.rs.
    #[test]
    fn the_text_is_where_the_code_looks_for_it() {
        for (machine, length) in [(Machine::X86_64, 33), (Machine::Aarch64, 32)] {
            let code = machine.code(4);
            assert_eq!(code.len(), length);
            let file = elf(machine, "text");
            assert_eq!(file[HEADERS as usize..], [&code, &b"text"[..]].concat());
        }
    }
}
