//! `davit image`: pull and import with progress through `davit.v1`, list and remove through CRI.

use std::io::BufRead;
use std::path::Path;

use proto::davit::v1::{Credentials, ImportRequest, Phase, Progress, PullRequest};
use proto::runtime::v1::{
    Image, ImageSpec, ImageStatusRequest, ListImagesRequest, RemoveImageRequest,
};
use serde_json::json;
use tonic::Streaming;

use crate::args::ImageCommand;
use crate::client::Client;
use crate::format::{print, short_id, size, table};
use crate::node::Node;
use crate::progress::Display;
use crate::{Error, Result};

/// Runs one of the image commands.
///
/// # Errors
/// No node, or its refusal.
pub async fn run(node: &Node, command: &ImageCommand) -> Result<u8> {
    match command {
        ImageCommand::Pull {
            reference,
            username,
            platform,
        } => {
            // Asked for before anything else, so that a pipe is read even when the node is down.
            let credentials = username.as_deref().map(credentials).transpose()?;
            let mut client = Client::connect(node).await?;
            let platform = platform.clone().unwrap_or_default();
            let request = PullRequest {
                reference: reference.clone(),
                credentials,
                platform,
            };
            let call = format!("pull \"{reference}\"");
            let stream = client
                .davit
                .pull(request)
                .await
                .map_err(Error::refused(&call))?;
            tell(follow(stream.into_inner(), &call).await?)
        }
        ImageCommand::Import { path, reference } => {
            let mut client = Client::connect(node).await?;
            tell(import(&mut client, path, reference.as_deref()).await?)
        }
        ImageCommand::Ls { json } => list(&mut Client::connect(node).await?, *json).await,
        ImageCommand::Rm { references } => {
            remove(&mut Client::connect(node).await?, references).await
        }
    }
}

/// An image that a pull or an import brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Brought {
    /// Its id.
    pub id: String,
    /// Its full name, empty if it has none.
    pub reference: String,
}

/// Imports from a file that the node can read too.
///
/// # Errors
/// The file is not there, or the node refuses what it holds.
pub async fn import(
    client: &mut Client,
    path: &Path,
    reference: Option<&str>,
) -> Result<Vec<Brought>> {
    // Looked at here first: an error about a relative path in the daemon's directory would help nobody.
    let absolute = path
        .canonicalize()
        .map_err(Error::io(format!("open {}", path.display())))?;
    let call = format!("import {}", path.display());
    let request = ImportRequest {
        path: absolute.display().to_string(),
        reference: reference.unwrap_or_default().to_owned(),
    };
    let stream = client
        .davit
        .import(request)
        .await
        .map_err(Error::refused(&call))?;
    follow(stream.into_inner(), &call).await
}

/// Shows the steps until the stream ends; a stream that ends without an image was cut off.
async fn follow(mut stream: Streaming<Progress>, call: &str) -> Result<Vec<Brought>> {
    let mut display = Display::new();
    let mut brought = Vec::new();
    let outcome = loop {
        match stream.message().await {
            Ok(Some(step)) if step.phase() == Phase::Image => brought.push(Brought {
                id: step.image_id,
                reference: step.reference,
            }),
            Ok(Some(step)) => display.show(&step),
            Ok(None) => break Ok(()),
            Err(status) => break Err(status),
        }
    };
    display.finish();
    outcome.map_err(Error::refused(call))?;
    if brought.is_empty() {
        let what = format!("{call}: the node ended the stream without naming an image");
        return Err(Error::Unfinished {
            what,
            hint: "`davit image ls` shows whether it is there; its log may say more".to_owned(),
        });
    }
    Ok(brought)
}

fn tell(brought: Vec<Brought>) -> Result<u8> {
    for image in brought {
        let name = if image.reference.is_empty() {
            "<none>"
        } else {
            &image.reference
        };
        print(&format!("{name} {}\n", image.id))?;
    }
    Ok(0)
}

/// The password comes from standard input: in an argument every user of the host could read it.
fn credentials(username: &str) -> Result<Credentials> {
    let mut password = String::new();
    std::io::stdin()
        .lock()
        .read_line(&mut password)
        .map_err(Error::io("read the password from standard input"))?;
    Ok(Credentials {
        username: username.to_owned(),
        password: password.trim_end_matches(['\r', '\n']).to_owned(),
        ..Credentials::default()
    })
}

async fn list(client: &mut Client, as_json: bool) -> Result<u8> {
    let answer = client
        .images
        .list_images(ListImagesRequest::default())
        .await
        .map_err(Error::refused("list images"))?;
    let images = answer.into_inner().images;
    if as_json {
        let each = images.iter().map(|i| json!({"id": i.id, "tags": i.repo_tags, "digests": i.repo_digests, "size_bytes": i.size, "pinned": i.pinned}));
        print(&format!("{:#}\n", serde_json::Value::Array(each.collect())))?;
    } else {
        print(&table(&["IMAGE", "ID", "SIZE"], &rows(&images)))?;
    }
    Ok(0)
}

/// One row per name; an image without a name has its digest reference, or nothing to be called by but its id.
fn rows(images: &[Image]) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    for image in images {
        let names = if image.repo_tags.is_empty() {
            &image.repo_digests
        } else {
            &image.repo_tags
        };
        let unnamed = ["<none>".to_owned()];
        let names = if names.is_empty() {
            &unnamed[..]
        } else {
            names
        };
        rows.extend(names.iter().map(|name| {
            vec![
                name.clone(),
                short_id(&image.id).to_owned(),
                size(image.size),
            ]
        }));
    }
    rows.sort();
    rows
}

/// Removes each; CRI answers "removed" for an image that never was, so a mistyped name is looked for first.
async fn remove(client: &mut Client, references: &[String]) -> Result<u8> {
    let mut unknown = Vec::new();
    for reference in references {
        let spec = || {
            Some(ImageSpec {
                image: reference.clone(),
                ..ImageSpec::default()
            })
        };
        let call = format!("remove \"{reference}\"");
        let request = ImageStatusRequest {
            image: spec(),
            verbose: false,
        };
        let status = client
            .images
            .image_status(request)
            .await
            .map_err(Error::refused(&call))?;
        if status.into_inner().image.is_none() {
            unknown.push(reference.clone());
            continue;
        }
        client
            .images
            .remove_image(RemoveImageRequest { image: spec() })
            .await
            .map_err(Error::refused(&call))?;
        print(&format!("removed {reference}\n"))?;
    }
    if unknown.is_empty() {
        return Ok(0);
    }
    Err(Error::Unfinished {
        what: format!("no such image: {}", unknown.join(", ")),
        hint: "`davit image ls` lists them".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_has_a_row_for_each_of_its_names_and_one_if_it_has_none() {
        let image = |tags: &[&str], digests: &[&str]| Image {
            id: "sha256:0123456789abcdef".into(),
            repo_tags: tags.iter().map(ToString::to_string).collect(),
            repo_digests: digests.iter().map(ToString::to_string).collect(),
            size: 1_200_000,
            ..Image::default()
        };
        let rows = rows(&[
            image(&["b:1", "a:1"], &["a@sha256:1"]),
            image(&[], &["c@sha256:2"]),
            image(&[], &[]),
        ]);
        let names: Vec<&str> = rows.iter().map(|row| row[0].as_str()).collect();
        assert_eq!(names, ["<none>", "a:1", "b:1", "c@sha256:2"]);
        assert_eq!(rows[1][1..], ["0123456789ab", "1.2 MB"]);
    }
}
