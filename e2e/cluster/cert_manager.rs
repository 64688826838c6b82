//! cert-manager, from the chart and the code of its Go module, installed by Helm.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::{
    Cluster, Paths,
    builder::{build, module_folder},
    images,
    parts::{self, Part},
    run::{at_once, check, command, succeeds},
};

const MODULE: &str = "github.com/cert-manager/cert-manager";
const NAMESPACE: &str = "cert-manager";

/// Its programs, and where the chart's values name the image of each.
const IMAGES: [(&str, &str); 3] = [
    ("cert-manager-controller", "image"),
    ("cert-manager-webhook", "webhook.image"),
    ("cert-manager-cainjector", "cainjector.image"),
];

/// The definitions of its kinds that are asked of it, for an API server without it. In its module they are templates of its
/// chart, in which only labels vary.
pub fn cert_manager_definitions(paths: &Paths) -> Result<String> {
    let module = module_folder(&paths.parts.join("cert-manager"), MODULE)?;
    let mut text = String::new();
    for kind in ["issuers", "certificates", "certificaterequests"] {
        let definition = fs::read_to_string(module.join(format!("deploy/crds/crd-{kind}.yaml")))?;
        for line in definition.lines().filter(|line| !line.contains("{{")) {
            text.push_str(line);
            text.push('\n');
        }
        text.push_str("---\n");
    }
    Ok(text.replace("  labels:\nspec:", "spec:"))
}

/// Installs cert-manager, unless the cluster has it.
pub fn install_cert_manager(cluster: &Cluster) -> Result<()> {
    let start = Instant::now();
    let paths = cluster.paths();
    build(paths, &[Part::named("cert-manager")?, Part::named("helm")?])?;
    let kubeconfig = cluster.kubeconfig()?;
    let helm = || -> Result<Command> {
        let mut helm = command(parts::program(paths, "helm")?);
        let home = paths.state.join("helm");
        helm.env("KUBECONFIG", &kubeconfig)
            .env("HELM_CACHE_HOME", home.join("cache"));
        helm.env("HELM_CONFIG_HOME", home.join("config"))
            .env("HELM_DATA_HOME", home.join("data"));
        Ok(helm)
    };
    let images = at_once(IMAGES, |(program, key)| {
        Ok((key, images::of_program(paths, "cert-manager", program)?))
    })?;
    let installed = check(helm()?.args(["status", NAMESPACE, "--namespace", NAMESPACE, "-o", "json"]));
    if let Ok(installed) = installed {
        let release: Value = serde_json::from_str(&installed)?;
        let (_, tag) = images[0]
            .1
            .reference
            .rsplit_once(':')
            .context("a reference has a tag")?;
        if release["info"]["status"] == "deployed" && release["config"]["image"]["tag"] == tag {
            eprintln!("cert-manager is installed");
            return Ok(());
        }
    } else if succeeds(
        cluster
            .kubectl()?
            .args(["get", "crd", "certificates.cert-manager.io"]),
    ) {
        eprintln!("the cluster has a cert-manager of its own: it is used as it is");
        return Ok(());
    }
    let mut install = helm()?;
    install
        .args(["upgrade", "--install", NAMESPACE])
        .arg(chart(cluster)?);
    install.args([
        "--namespace",
        NAMESPACE,
        "--create-namespace",
        "--wait",
        "--timeout=5m",
    ]);
    for (key, reference) in at_once(images, |(key, image)| {
        Ok((key, cluster.load_image(&image.archive)?))
    })? {
        let (repository, tag) = reference.rsplit_once(':').context("a reference has a tag")?;
        install.arg(format!("--set={key}.repository={repository}"));
        install.arg(format!("--set-string={key}.tag={tag}"));
    }
    // The check at start is a program of its own; `--wait` and what is created next tell as much.
    install.arg("--set=startupapicheck.enabled=false");
    // Asked every second, the webhook is known to be ready as soon as it is.
    install.arg("--set=webhook.readinessProbe.initialDelaySeconds=1,webhook.readinessProbe.periodSeconds=1");
    install.arg(format!("--set=global.leaderElection.namespace={NAMESPACE}"));
    check(&mut install).context("install cert-manager")?;
    eprintln!(
        "cert-manager is installed after {:.0} s",
        start.elapsed().as_secs_f32()
    );
    Ok(())
}

/// The chart, put together as its release would be: its own files, a version, the definitions among the templates.
fn chart(cluster: &Cluster) -> Result<PathBuf> {
    let part = Part::named("cert-manager")?;
    let paths = cluster.paths();
    let built = part.binaries(paths)?;
    let name = built.file_name().context("a part's folder has a name")?;
    let chart = paths.cache.join("charts").join(name);
    if chart.is_dir() {
        return Ok(chart);
    }
    let module = module_folder(&part.folder(paths), MODULE)?;
    let version = module
        .file_name()
        .and_then(|name| name.to_str())
        .and_then(|name| name.rsplit_once('@'))
        .map(|(_, version)| version.to_owned())
        .context("a module's folder ends with its version")?;
    let parent = chart.parent().context("a folder below the cache")?;
    fs::create_dir_all(parent)?;
    let work = tempfile::tempdir_in(parent)?;
    let unfinished = work.path().join("cert-manager");
    check(
        command("cp")
            .arg("-r")
            .arg(module.join("deploy/charts/cert-manager"))
            .arg(&unfinished),
    )?;
    check(command("chmod").args(["-R", "u+w"]).arg(work.path()))?;
    let template = fs::read_to_string(unfinished.join("Chart.template.yaml"))?;
    fs::write(unfinished.join("Chart.yaml"), chart_yaml(&template, &version))?;
    copy_definitions(&module.join("deploy/crds"), &unfinished.join("templates"))?;
    fs::rename(&unfinished, &chart)?;
    Ok(chart)
}

fn copy_definitions(from: &Path, to: &Path) -> Result<()> {
    let mut copied = 0;
    for entry in fs::read_dir(from)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            let name = path.file_name().context("a file has a name")?;
            fs::write(to.join(name), fs::read(&path)?)?;
            copied += 1;
        }
    }
    ensure!(copied > 0, "{} holds no definitions", from.display());
    Ok(())
}

fn chart_yaml(template: &str, version: &str) -> String {
    let line = |line: &str| match line.split_once(':') {
        Some((key @ ("version" | "appVersion"), _)) => format!("{key}: {version}\n"),
        _ => format!("{line}\n"),
    };
    template.lines().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chart_gets_the_version_of_its_module() {
        let text = chart_yaml(
            "name: cert-manager\nversion: v0.1.0\nappVersion: v0.1.0\n",
            "v1.11.5",
        );
        assert_eq!(
            text,
            "name: cert-manager\nversion: v1.11.5\nappVersion: v1.11.5\n"
        );
    }
}
