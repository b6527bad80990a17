//! The service's life: everything is built and checked, then ports are bound, then it serves until it is told to stop.

use crate::api::{Api, serve};
use crate::boot;
use crate::boot::serve::BootError;
use crate::conductor::{Conductor, ImageInspector};
use crate::config::Config;
use crate::domain::validate::{ImageFacts, ImageRequest};
use crate::drivers::ipmi::{Ipmi, IpmiSettings};
use crate::drivers::registry::Registry;
use crate::images::source::{self, SourceAccess};
use crate::store::Store;
use crate::store::seal::Sealer;
use anyhow::Context as _;
use async_trait::async_trait;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Runs the service until SIGTERM or SIGINT.
///
/// # Errors
/// What could not be opened, bound or read at the start.
pub async fn run(config: Config) -> anyhow::Result<()> {
    let state_dir = config.settings.state_dir.clone();
    std::fs::create_dir_all(&state_dir)
        .with_context(|| format!("creating the state folder {}", state_dir.display()))?;
    let store = Store::open(&state_dir.join("ferric.db"))?;
    let sealer = Sealer::from_file(&state_dir.join("secret.key"))
        .with_context(|| format!("opening the key file in {}", state_dir.display()))?;
    let images = Arc::new(HttpImages { access: source_access(&config)? });
    let drivers = Registry::new(Ipmi::new(IpmiSettings {
        tries: config.ipmi.tries,
        first_wait: config.ipmi.first_wait,
        talk: config.ipmi.talk,
        allow_empty_password: config.ipmi.allow_empty_password,
    }));
    let conductor = Conductor::new(store, sealer, drivers, images, config.settings);
    let services = match config.boot {
        Some(boot) => Some(boot::serve::spawn(boot, config.dhcp, &state_dir, conductor.clone())?),
        None => None,
    };
    let listener = TcpListener::bind(config.listen)
        .await
        .with_context(|| format!("listening on {} for the API", config.listen))?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    conductor.start().await?;
    tracing::info!(listen = %listener.local_addr()?, api_url = %conductor.settings().api_url, "serving");

    let (stop, stopped) = watch::channel(false);
    let api = tokio::spawn(serve::run(Api::new(conductor.clone(), config.public_url), listener, stopped));
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("stopping; what is unfinished is taken up at the next start");
    conductor.stop();
    stop.send_replace(true);
    api.await?;
    if let Some(services) = services {
        services.shutdown().await;
    }
    Ok(())
}

/// Whether the service did not start because of what the configuration says, rather than of the machine it runs on.
pub fn is_configuration(error: &anyhow::Error) -> bool {
    matches!(
        error.downcast_ref::<BootError>(),
        Some(
            BootError::Config(_)
                | BootError::BootFile(_)
                | BootError::BootProgram { .. }
                | BootError::ImagesDir { .. }
        )
    )
}

fn source_access(config: &Config) -> anyhow::Result<SourceAccess> {
    let extra_roots: Vec<CertificateDer<'static>> = match &config.image_ca_file {
        None => Vec::new(),
        Some(path) => CertificateDer::pem_file_iter(path)
            .and_then(Iterator::collect::<Result<_, _>>)
            .with_context(|| format!("reading [images] ca_file {}", path.display()))?,
    };
    Ok(SourceAccess { extra_roots, allow_local_addresses: config.allow_local_images })
}

/// Asks real image servers.
struct HttpImages {
    access: SourceAccess,
}

#[async_trait]
impl ImageInspector for HttpImages {
    async fn inspect(&self, image: &ImageRequest) -> Result<ImageFacts, String> {
        let found = source::inspect(image.url.as_str(), image.format.as_deref(), &self.access)
            .await
            .map_err(|e| e.to_string())?;
        if found.backing_file {
            return Err("the image is a qcow2 that rests on another image (a backing file), which no machine can follow; flatten it with qemu-img convert".into());
        }
        Ok(ImageFacts {
            length: found.length,
            virtual_size: found.virtual_size,
            format: Some(found.format.to_string()),
        })
    }
}
