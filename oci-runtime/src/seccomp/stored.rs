//! A program as bytes: how a container keeps its filter for `exec`, which then has nothing to compile.
use sys::seccomp::Instruction;

/// The bytes of `struct sock_filter`, in the machine's order.
pub fn encode(program: &[Instruction]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(program.len() * 8);
    for one in program {
        bytes.extend_from_slice(&one.code.to_ne_bytes());
        bytes.extend_from_slice(&[one.jt, one.jf]);
        bytes.extend_from_slice(&one.k.to_ne_bytes());
    }
    bytes
}

/// The program of these bytes; `None` where they are not whole instructions.
pub fn decode(bytes: &[u8]) -> Option<Vec<Instruction>> {
    let (chunks, []) = bytes.as_chunks::<8>() else {
        return None;
    };
    let instruction = |[c0, c1, jt, jf, k0, k1, k2, k3]: &[u8; 8]| Instruction {
        code: u16::from_ne_bytes([*c0, *c1]),
        jt: *jt,
        jf: *jf,
        k: u32::from_ne_bytes([*k0, *k1, *k2, *k3]),
    };
    Some(chunks.iter().map(instruction).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn bytes_are_a_program_and_back(bytes: Vec<u8>) {
            match decode(&bytes) {
                Some(program) => proptest::prop_assert_eq!(encode(&program), bytes),
                None => proptest::prop_assert!(!bytes.len().is_multiple_of(8)),
            }
        }
    }
}
