//! What cargo knows about this workspace: its packages, their targets, features and edges.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::run;

/// The workspace, as one `cargo metadata` call tells it.
pub(crate) struct Workspace {
    pub(crate) root: PathBuf,
    pub(crate) target: PathBuf,
    pub(crate) packages: Vec<Package>,
}

/// One member of the workspace.
#[derive(Debug, Clone)]
pub(crate) struct Package {
    pub(crate) name: String,
    /// Root source file of each library, binary, test, example and bench.
    pub(crate) targets: Vec<Target>,
    pub(crate) features: Vec<String>,
    pub(crate) dependencies: Vec<Dependency>,
}

#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) source: PathBuf,
}

/// A dependency as the manifest names it.
#[derive(Debug, Clone)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    /// `normal`, `dev` or `build`.
    pub(crate) kind: String,
    /// Whether it is another member of the workspace.
    pub(crate) is_member: bool,
}

impl Workspace {
    /// Asks cargo; works from any directory below the workspace root.
    pub(crate) fn find() -> Result<Workspace> {
        let json = run::output(cargo().args(["metadata", "--format-version", "1", "--no-deps"]))?;
        let value: Value =
            serde_json::from_str(&json).context("parse the output of cargo metadata")?;
        let text = |key: &str| {
            Ok::<_, anyhow::Error>(PathBuf::from(
                value[key]
                    .as_str()
                    .with_context(|| format!("cargo metadata has no {key}"))?,
            ))
        };
        Ok(Workspace {
            root: text("workspace_root")?,
            target: text("target_directory")?,
            packages: packages(&value)?,
        })
    }

    /// Whether the package has the feature: not every crate needs fail points.
    pub(crate) fn has_feature(&self, package: &str, feature: &str) -> bool {
        self.packages
            .iter()
            .any(|p| p.name == package && p.features.iter().any(|f| f == feature))
    }

    /// `cargo` at the workspace root.
    pub(crate) fn cargo(&self) -> Command {
        let mut command = cargo();
        command.current_dir(&self.root);
        command
    }
}

/// The cargo that runs this xtask, so that the pinned toolchain is used for everything.
fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// Members of the workspace from the output of `cargo metadata --no-deps`.
pub(crate) fn packages(metadata: &Value) -> Result<Vec<Package>> {
    let list = metadata["packages"]
        .as_array()
        .context("cargo metadata has no packages")?;
    list.iter().map(package).collect()
}

fn package(value: &Value) -> Result<Package> {
    let name = string(value, "name")?;
    let each = |key: &str| value[key].as_array().cloned().unwrap_or_default();
    let targets = each("targets")
        .iter()
        .map(target)
        .collect::<Result<_>>()
        .with_context(|| format!("package {name}"))?;
    let dependencies = each("dependencies")
        .iter()
        .map(dependency)
        .collect::<Result<_>>()
        .with_context(|| format!("package {name}"))?;
    let features = value["features"]
        .as_object()
        .map(|f| f.keys().cloned().collect())
        .unwrap_or_default();
    Ok(Package {
        name,
        targets,
        features,
        dependencies,
    })
}

fn target(value: &Value) -> Result<Target> {
    let kind = value["kind"][0]
        .as_str()
        .context("a target has no kind")?
        .to_owned();
    Ok(Target {
        name: string(value, "name")?,
        kind,
        source: PathBuf::from(string(value, "src_path")?),
    })
}

fn dependency(value: &Value) -> Result<Dependency> {
    Ok(Dependency {
        name: string(value, "name")?,
        kind: value["kind"].as_str().unwrap_or("normal").to_owned(),
        is_member: value["path"].is_string(),
    })
}

fn string(value: &Value, key: &str) -> Result<String> {
    Ok(value[key]
        .as_str()
        .with_context(|| format!("cargo metadata: no \"{key}\" in {value}"))?
        .to_owned())
}
