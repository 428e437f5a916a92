//! What the quickstart shows: waits for the services, runs one job on the real elevation model with its progress, and prints
//! what to try next. Sees the product only through HTTP, as any client does.

use std::error::Error;
use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;

use crate::client::{attribute, get, target};
use crate::site::Site;

/// Longest wait for the first services and for the job; minutes below it on any machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two questions for the job's progress.
const PAUSE: Duration = Duration::from_millis(50);

/// The sample job: process, inputs, output.
struct Sample {
    process: &'static str,
    inputs: &'static str,
    output: &'static str,
    says: &'static str,
}

const CONTOUR: Sample = Sample {
    process: "gdal:Contour",
    inputs: "interval=25",
    output: "result_geojson",
    says: "contour lines, one every 25 m",
};
const STATISTICS: Sample = Sample {
    process: "demo:DemStatistics",
    inputs: "bins=6",
    output: "result_statistics",
    says: "statistics (GDAL is not installed, so no contour lines)",
};

/// Tells the story. Returns after it when `once`, else never.
pub async fn tell(wps: SocketAddr, site: &Site, once: bool) -> Result<(), Box<dyn Error>> {
    say("orchestrator, embedded XMPP server and agent are running in this process")?;
    let sample =
        tokio::time::timeout(PATIENCE, discover(wps)).await.map_err(|_| "no service was discovered")??;
    tokio::time::timeout(PATIENCE, job(wps, &sample)).await.map_err(|_| "the job takes too long")??;
    if once {
        return Ok(());
    }
    let services = site.services();
    say(&format!(
        "\nWPS is at         http://{wps}/wps\n\
         services are in   {}  (edit or drop an INI file there and ask for the capabilities again)\n\n\
         Try:\n  curl 'http://{wps}/wps?service=WPS&request=GetCapabilities'\n  \
         curl 'http://{wps}/wps?service=WPS&version=1.0.0&request=Execute&identifier=demo:Echo&DataInputs=text=hello&RawDataOutput=result_text'\n  \
         curl 'http://{wps}/wps?service=WPS&version=1.0.0&request=Execute&identifier=demo:Sleep&DataInputs=seconds=20&storeExecuteResponse=true&status=true'\n\n\
         Ctrl-C ends everything.",
        services.display()
    ))?;
    std::future::pending::<()>().await;
    Ok(())
}

/// Waits until the services are on offer; chooses the sample.
async fn discover(wps: SocketAddr) -> Result<Sample, Box<dyn Error>> {
    let gdal = installed("gdal_contour");
    let last = if gdal { CONTOUR.process } else { STATISTICS.process };
    loop {
        let (status, body) = get(wps, "/wps?service=WPS&request=GetCapabilities").await?;
        let document = String::from_utf8_lossy(&body);
        if status == 200 && ["demo:Echo", "demo:Sleep", last].iter().all(|process| document.contains(process))
        {
            let mut offered: Vec<&str> = document
                .split("Identifier>")
                .filter_map(|piece| piece.split_once("</").map(|(name, _)| name))
                .filter(|name| name.contains(':') && !name.contains(char::is_whitespace))
                .collect();
            offered.sort_unstable();
            offered.dedup();
            say(&format!("discovered: {}", offered.join(", ")))?;
            return Ok(if gdal { CONTOUR } else { STATISTICS });
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Runs the sample asynchronously and shows its progress and result.
async fn job(wps: SocketAddr, sample: &Sample) -> Result<(), Box<dyn Error>> {
    say(&format!(
        "executing {} on the elevation model of the Jacksboro fault: {}",
        sample.process, sample.says
    ))?;
    let (_, body) = get(
        wps,
        &format!(
            "/wps?service=WPS&version=1.0.0&request=Execute&identifier={}&DataInputs={}\
             &ResponseDocument={}@asReference=true&storeExecuteResponse=true&status=true",
            sample.process, sample.inputs, sample.output
        ),
    )
    .await?;
    let accepted = String::from_utf8_lossy(&body).into_owned();
    let location =
        attribute(&accepted, "statusLocation").ok_or_else(|| format!("not accepted: {accepted}"))?;
    let mut shown = None;
    let document = loop {
        let (_, body) = get(wps, &target(&location)).await?;
        let document = String::from_utf8_lossy(&body).into_owned();
        let percent = attribute(&document, "percentCompleted");
        if percent.is_some() && percent != shown {
            say(&format!("  {} %", percent.as_deref().unwrap_or_default()))?;
            shown = percent;
        }
        if document.contains("ProcessSucceeded") {
            break document;
        }
        if document.contains("ProcessFailed") {
            return Err(format!("the job failed: {document}").into());
        }
        tokio::time::sleep(PAUSE).await;
    };
    say("  100 %")?;
    let (_, rest) = document.split_once("<wps:Reference").ok_or("the answer holds no reference")?;
    let reference = attribute(rest, "href").ok_or("the reference has no address")?;
    let (_, result) = get(wps, &target(&reference)).await?;
    let text = String::from_utf8_lossy(&result);
    if sample.process == CONTOUR.process {
        say(&format!(
            "result: {} contour lines, {} bytes of GeoJSON at\n  {reference}",
            text.matches("\"Feature\"").count(),
            result.len()
        ))?;
    } else {
        say(&format!("result, from {reference}:\n{text}"))?;
    }
    Ok(())
}

/// Whether a program is found.
fn installed(program: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join(program).is_file()))
}

/// One line for the user.
pub fn say(text: &str) -> std::io::Result<()> {
    writeln!(std::io::stdout(), "{text}")
}
