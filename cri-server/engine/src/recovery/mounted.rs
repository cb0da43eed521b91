//! What a container without a readable record is made of: the kernel knows which layers are mounted.

use std::path::{Component, Path};

use snapshotter::{DiffId, Digest};
use sys::mountinfo::Mount;

/// The layers below `layers_dir` that the mounts below `bundle` show: a root file system, and images as volumes.
pub(super) fn layers(table: &[Mount], bundle: &Path, layers_dir: &Path) -> Vec<DiffId> {
    let mut found: Vec<DiffId> = table
        .iter()
        .filter(|mount| mount.fs_type == "overlay" && mount.mount_point.starts_with(bundle))
        .flat_map(|mount| &mount.super_options)
        .filter_map(|option| {
            option
                .strip_prefix("lowerdir=")
                .or(option.strip_prefix("lowerdir+="))
        })
        .flat_map(|value| value.split(':'))
        .filter_map(|lower| layer(Path::new(lower), layers_dir))
        .collect();
    found.sort();
    found.dedup();
    found
}

/// `<layers_dir>/<hex digits>/fs`.
fn layer(lower: &Path, layers_dir: &Path) -> Option<DiffId> {
    let mut rest = lower.strip_prefix(layers_dir).ok()?.components();
    match (rest.next()?, rest.next()?, rest.next()) {
        (Component::Normal(hex), Component::Normal(name), None) if name == "fs" => {
            Digest::from_hex(hex.to_str()?).ok().map(DiffId)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layers_of_a_bundle_are_read_from_both_forms_of_the_option() {
        let (one, two, three) = ("1".repeat(64), "2".repeat(64), "3".repeat(64));
        let table = format!(
            "1 0 0:9 / /run/p/c/rootfs rw - overlay overlay rw,lowerdir+=/s/layers/{one}/fs,lowerdir+=/s/layers/{two}/fs,upperdir=/s/u\n\
             2 0 0:9 / /run/p/c/volumes/0 ro - overlay overlay ro,lowerdir=/s/layers/{two}/fs:/s/empty\n\
             3 0 0:9 / /run/p/other/rootfs rw - overlay overlay rw,lowerdir=/s/layers/{three}/fs\n\
             4 0 0:9 / /run/p/c/x rw - tmpfs overlay rw,lowerdir=/s/layers/{three}/fs\n"
        );
        let table = sys::mountinfo::parse(table.as_bytes());
        let found = layers(&table, Path::new("/run/p/c"), Path::new("/s/layers"));
        let hex: Vec<String> = found.iter().map(DiffId::hex).collect();
        assert_eq!(hex, [one, two]);
    }
}
