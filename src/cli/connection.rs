//! Which cluster, and as whom: kubectl's own flags and files.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Args;
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};

/// How the API server is reached.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Cluster")]
pub struct Connection {
    /// Context of the kubeconfig to use instead of the current one.
    #[arg(long, global = true, value_name = "NAME")]
    context: Option<String>,
    /// The kubeconfig to use instead of $KUBECONFIG or ~/.kube/config.
    #[arg(long, global = true, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// User to act as, if you may impersonate.
    #[arg(long = "as", global = true, value_name = "USER")]
    act_as: Option<String>,
    /// Group to act as a member of; may be repeated.
    #[arg(long = "as-group", global = true, value_name = "GROUP", requires = "act_as")]
    act_as_groups: Vec<String>,
}

impl Connection {
    /// A client with the rights of the person who runs this.
    pub async fn client(&self) -> Result<Client> {
        let mut config = self.config().await.context("no cluster to talk to")?;
        if self.act_as.is_some() {
            config.auth_info.impersonate.clone_from(&self.act_as);
            config.auth_info.impersonate_groups = Some(self.act_as_groups.clone());
        }
        Client::try_from(config).context("no client for the cluster")
    }

    async fn config(&self) -> Result<Config> {
        let options = KubeConfigOptions {
            context: self.context.clone(),
            ..KubeConfigOptions::default()
        };
        match &self.kubeconfig {
            Some(path) => {
                let file =
                    Kubeconfig::read_from(path).with_context(|| format!("reading {}", path.display()))?;
                Ok(Config::from_custom_kubeconfig(file, &options).await?)
            }
            None if self.context.is_some() => Ok(Config::from_kubeconfig(&options).await?),
            // Also inside a pod, where there is a service account and no file.
            None => Ok(Config::infer().await?),
        }
    }
}

/// An error and its causes in one line; of the API server's answers, the part that is for people.
pub fn explain(error: &anyhow::Error) -> String {
    let mut parts: Vec<String> = Vec::new();
    for cause in error.chain() {
        let (text, last) = match cause.downcast_ref::<kube::Error>() {
            Some(kube::Error::Api(status)) => (status.message.clone(), true),
            _ => (cause.to_string(), false),
        };
        // Many errors repeat their cause in their own text.
        if !parts.last().is_some_and(|previous| previous.contains(&text)) {
            parts.push(text);
        }
        if last {
            break;
        }
    }
    parts.join(": ")
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;
    use kube::core::Status;

    use super::*;

    #[test]
    fn of_an_api_error_only_the_message_is_shown() {
        let status = Status {
            message: "pods is forbidden".into(),
            code: 403,
            ..Status::default()
        };
        let error = Err::<(), _>(kube::Error::Api(Box::new(status)))
            .context("listing pods")
            .unwrap_err();
        assert_eq!(explain(&error), "listing pods: pods is forbidden");
    }

    #[test]
    fn a_cause_that_its_error_repeats_is_shown_once() {
        let error = anyhow::anyhow!("no such file").context("reading x: no such file");
        assert_eq!(explain(&error), "reading x: no such file");
    }
}
