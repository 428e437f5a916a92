//! Bounding boxes as programs see them: `minx,miny,maxx,maxy`, or six numbers, and the reference system behind them. Knows
//! nothing of descriptors or documents.

use wps_remote_protocol::BoundingBox;

/// What a box looks like, for messages.
pub const FORM: &str = "a bounding box `minx,miny,maxx,maxy[,reference system]`";
/// The reference system of a descriptor that names none.
pub const USUAL_SYSTEM: &str = "EPSG:4326";
/// Longest name of a reference system, in bytes.
const MAX_SYSTEM: usize = 200;

/// Reads the text of a box.
pub fn parse(text: &str) -> Option<BoundingBox> {
    let parts: Vec<&str> = text.trim().split(',').map(str::trim).collect();
    let (numbers, crs) = match parts.len() {
        4 | 6 => (parts.as_slice(), None),
        5 | 7 => (&parts[..parts.len() - 1], parts.last().copied()),
        _ => return None,
    };
    if crs.is_some_and(|crs| !is_system(crs)) {
        return None;
    }
    let numbers: Vec<f64> = numbers
        .iter()
        .map(|text| text.parse().ok().filter(|n: &f64| n.is_finite()))
        .collect::<Option<Vec<f64>>>()?;
    let (lower, upper) = numbers.split_at(numbers.len() / 2);
    Some(BoundingBox { crs: crs.map(str::to_owned), lower: lower.to_vec(), upper: upper.to_vec() })
}

/// The text of a box for a program whose descriptor names these systems, the default first: always with a system, written
/// as the descriptor writes it.
pub fn text(area: &BoundingBox, systems: &[String]) -> Result<String, String> {
    let usual = systems.first().map_or(USUAL_SYSTEM, String::as_str);
    let system = match area.crs.as_deref() {
        None => usual,
        Some(named) if systems.is_empty() && is_system(named) => named,
        Some(named) => {
            let known = systems.iter().find(|known| same_system(known, named));
            known.map(String::as_str).ok_or_else(|| {
                let named: String = named.chars().take(80).collect();
                format!("has the reference system `{named}`; it takes {}", systems.join(", "))
            })?
        }
    };
    let numbers = area.lower.iter().chain(&area.upper).map(ToString::to_string);
    Ok(numbers.chain([system.to_owned()]).collect::<Vec<_>>().join(","))
}

/// Whether a text can name a reference system.
pub fn is_system(text: &str) -> bool {
    (1..=MAX_SYSTEM).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_graphic() && b != b',')
        && !text.starts_with('-')
}

/// Whether two names mean the same system: `EPSG:4326`, `urn:ogc:def:crs:EPSG::4326`,
/// `http://www.opengis.net/def/crs/EPSG/0/4326`.
fn same_system(a: &str, b: &str) -> bool {
    a == b || short(a).is_some_and(|short_a| short(b).is_some_and(|short_b| short_a == short_b))
}

fn short(name: &str) -> Option<(String, String)> {
    let lower = name.to_ascii_lowercase();
    let rest =
        ["urn:ogc:def:crs:", "urn:x-ogc:def:crs:"].iter().find_map(|prefix| lower.strip_prefix(prefix));
    let path = ["http://www.opengis.net/def/crs/", "https://www.opengis.net/def/crs/"]
        .iter()
        .find_map(|prefix| lower.strip_prefix(prefix));
    let parts: Vec<&str> = match (rest, path) {
        (Some(rest), _) => rest.split(':').collect(),
        (None, Some(path)) => path.split('/').collect(),
        (None, None) => lower.split(':').collect(),
    };
    match parts.as_slice() {
        [authority, code] | [authority, _, code] => Some(((*authority).to_owned(), (*code).to_owned())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_are_read() {
        let flat = parse(" -10.5, 40,1e1,50 \n").unwrap();
        assert_eq!((flat.crs, flat.lower, flat.upper), (None, vec![-10.5, 40.0], vec![10.0, 50.0]));
        let solid = parse("1,2,3,4,5,6,EPSG:4979").unwrap();
        assert_eq!((solid.crs.as_deref(), solid.upper), (Some("EPSG:4979"), vec![4.0, 5.0, 6.0]));
        for bad in [
            "",
            "1,2,3",
            "1,2,3,x",
            "1,2,3,NaN",
            "1,2,3,inf",
            "1,2,3,4,",
            "1,2,3,4,a b",
            "1,2,3,4,-x",
            "1;2;3;4",
        ] {
            assert!(parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn programs_see_the_system_as_their_descriptor_writes_it() {
        let systems = ["EPSG:4326".to_owned(), "urn:ogc:def:crs:OGC:1.3:CRS84".to_owned()];
        let of = |crs: Option<&str>| {
            let area = BoundingBox { crs: crs.map(str::to_owned), ..parse("-1,2.50,3,4").unwrap() };
            text(&area, &systems)
        };
        for same in [None, Some("EPSG:4326"), Some("epsg:4326"), Some("urn:ogc:def:crs:EPSG::4326")] {
            assert_eq!(of(same).unwrap(), "-1,2.5,3,4,EPSG:4326", "{same:?}");
        }
        assert_eq!(of(Some("http://www.opengis.net/def/crs/EPSG/0/4326")).unwrap(), "-1,2.5,3,4,EPSG:4326");
        assert!(
            of(Some("http://www.opengis.net/def/crs/OGC/1.3/CRS84"))
                .unwrap()
                .ends_with(",urn:ogc:def:crs:OGC:1.3:CRS84")
        );
        let refused = of(Some("EPSG:3857")).unwrap_err();
        assert!(refused.contains("`EPSG:3857`") && refused.contains("EPSG:4326"), "{refused}");
    }
}
