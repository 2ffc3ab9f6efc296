//! Which place of which order a run began at.
//!
//! The places at hand are tried from the likeliest on, and how many were tried before one fitted counts against it. What a
//! run before was recognised by adds its evidence to that of a run that fits what it leaves.

use serde::{Deserialize, Serialize};

use super::fit::{Fit, Taken};
use super::search::{Effort, Field, Surest};
use super::set::Reading;
use super::{By, Draw, Place, Recognised, Step};
use crate::shape::Slot;

/// What fits by a chance of more than this is not even supposed (natural logarithm: one in a hundred).
const SUPPOSED: f64 = -4.6;
/// What a run itself must show, however well the one before was known (natural logarithm: one in ten).
const FITS: f64 = -2.3;
/// Share of steps to a file of a higher index from which on an order is by name and was not drawn.
const BY_NAME: f64 = 0.85;
/// Numbers of a command line that are tried as seeds.
const ARGUMENTS: usize = 8;
/// Numbers that a program's generator may give between two epochs.
const BETWEEN: u64 = 4096;

/// A reading whose seed is still looked for, a part at a time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Puzzle {
    reading: Reading,
    /// Numbers of the command line.
    #[serde(default)]
    said: Vec<u32>,
    /// Tries that have been made.
    next: u64,
    surest: Surest,
}

/// What order one of these readings was taken in, the likeliest first, if that is recognised: by what the run before
/// leaves, by numbers of the command line, or by trying. Of several that fit the surest.
pub fn recognise(
    readings: &[Reading],
    arguments: &[Slot],
    before: Option<&Recognised>,
    effort: Effort,
) -> Option<Recognised> {
    let found = readings.iter().filter_map(|reading| recognise_one(reading, arguments, before, effort));
    found.min_by(|a, b| a.doubt.total_cmp(&b.doubt))
}

fn recognise_one(
    reading: &Reading,
    arguments: &[Slot],
    before: Option<&Recognised>,
    effort: Effort,
) -> Option<Recognised> {
    if by_name(&reading.passes[0]) {
        return None;
    }
    let taken = Taken::new(&reading.passes[0], reading.files);
    let said = said(arguments);
    if let Some(before) = before.filter(|b| b.set == reading.set)
        && let Some(left) = left_by(before, &said, reading, &taken)
    {
        return Some(left);
    }
    let mut surest = Surest::default();
    effort.fields(&said, &taken).iter().for_each(|field| surest.try_field(field, &taken));
    recognised(reading, &surest)
}

/// What was recognised while a run went on, by all that it took; none where that fits no longer.
pub fn confirmed(readings: &[Reading], known: &Recognised) -> Option<Recognised> {
    let reading = readings.iter().find(|reading| reading.set == known.set && reading.files == known.files)?;
    let by_all = finished(reading, known.began, known.doubt, known.step)?;
    Some(Recognised { epoch: known.epoch, ..by_all })
}

/// The numbers of a command line that are tried as seeds.
fn said(arguments: &[Slot]) -> Vec<u32> {
    arguments.iter().filter_map(|a| a.value()).map(|n| n as u32).take(ARGUMENTS).collect()
}

impl Puzzle {
    /// Of a reading that a brief effort did not recognise; none if it was by name, or of too few files to tell.
    pub fn new(reading: Reading, arguments: &[Slot]) -> Option<Self> {
        /// Of fewer than these some seed below a million fits.
        const LEAST_FILES: usize = 6;
        let first = &reading.passes[0];
        let tells = first.len() >= LEAST_FILES && !by_name(first);
        tells.then(|| Self { reading, said: said(arguments), next: 0, surest: Surest::default() })
    }

    /// Makes some more tries, as many as cost so much (see [`Field::price`]). The answer, once there is one: what was
    /// recognised, or that nothing was.
    pub fn try_more(&mut self, work: u64) -> Option<Option<Recognised>> {
        let taken = Taken::new(&self.reading.passes[0], self.reading.files);
        let (mut before, mut left) = (0, work);
        for field in Effort::THOROUGH.fields(&self.said, &taken) {
            let (from, price) = (self.next.saturating_sub(before).min(field.tries()), field.price(&taken));
            let part = field.part(from, left.div_ceil(price));
            self.surest.try_field(&part, &taken);
            self.next += part.tries();
            left = left.saturating_sub(part.tries() * price);
            before += field.tries();
        }
        let over = self.next == before || self.surest.is_sure();
        over.then(|| recognised(&self.reading, &self.surest))
    }
}

/// Whether files came by name, or nearly.
fn by_name(pass: &[u32]) -> bool {
    let up = pass.windows(2).filter(|w| w[1] > w[0]).count();
    up as f64 >= BY_NAME * pass.len().saturating_sub(1) as f64
}

fn recognised(reading: &Reading, surest: &Surest) -> Option<Recognised> {
    let (began, fit) = surest.found()?;
    finished(reading, began, fit.doubt, None).filter(|found| found.doubt <= SUPPOSED)
}

/// Of a run that goes on with the epochs of the one before, their count.
fn epoch(before: &Recognised, began: Place) -> u32 {
    let on =
        before.step.filter(|step| step.seed == 1).map_or(0, |_| began.draw.seed.wrapping_sub(before.began.draw.seed));
    before.epoch.wrapping_add(on)
}

/// At a place that the run before leaves: where it stopped, in the file that it stopped in, where it began; or anywhere
/// in the order that it was in, or in the next. Or it takes another rank's share, or draws with a number of its command line
/// as the seed.
fn left_by(before: &Recognised, said: &[u32], reading: &Reading, taken: &Taken) -> Option<Recognised> {
    let mut surest = Surest::default();
    let ended = before.ended();
    let back = before.visits.checked_sub(1).and_then(|v| before.began.on(v, before.files, before.step));
    let seeded = |seed: &u32| Place { draw: Draw { seed: *seed, ..before.began.draw }, ..before.began };
    let siblings = before.began.draw.share.siblings();
    let dealt = siblings.map(|share| Place { draw: Draw { share, ..before.began.draw }, ..before.began });
    for place in ended.into_iter().chain(back).chain(dealt).chain(said.iter().map(seeded)) {
        let fit = fit(place, before.step, reading, taken);
        surest.tried(1, fit.map(|fit| (place, fit)));
    }
    let draws = ended.map_or(before.began.draw, |e| e.draw);
    let next = before.step.map(|step| draws.after(step, 1));
    for draw in [draws].into_iter().chain(next) {
        if surest.is_sure() {
            break;
        }
        if let Some(offset) = found_at(draw, reading) {
            let place = Place { draw, offset };
            let fit = fit(place, before.step, reading, taken);
            surest.tried(u64::from(reading.files), fit.map(|fit| (place, fit)));
        }
    }
    let (began, fit) = surest.found()?;
    let own = finished(reading, began, fit.doubt, before.step).filter(|found| found.doubt <= FITS)?;
    let doubt = own.doubt + before.doubt.min(0.0);
    (doubt <= SUPPOSED).then(|| Recognised { epoch: epoch(before, began), doubt, ..own })
}

/// Where the first of the files that were taken stand in an order.
fn found_at(draw: Draw, reading: &Reading) -> Option<u32> {
    const FIRST: usize = 4;
    let first = &reading.passes[0][..reading.passes[0].len().min(FIRST)];
    let order = draw.can_be_drawn(reading.files).then(|| draw.order(reading.files))?;
    (0..).zip(order).find(|(_, file)| first.contains(file)).map(|(place, _)| place)
}

/// How the first pass fits a place.
fn fit(place: Place, step: Option<Step>, reading: &Reading, taken: &Taken) -> Option<Fit> {
    let told = passes_from(place, step, reading, 1)?;
    taken.fit_all(told.into_iter().next()?)
}

/// With how epochs follow one another, as far as the later passes tell.
fn finished(reading: &Reading, began: Place, doubt: f64, known: Option<Step>) -> Option<Recognised> {
    let taken: Vec<Taken> = reading.passes.iter().map(|pass| Taken::new(pass, reading.files)).collect();
    let slack = fit(began, known, reading, &taken[0]).or_else(|| fit(began, None, reading, &taken[0]))?.slack;
    let crossed = u64::from(began.offset) + reading.visits > u64::from(began.draw.length(reading.files));
    let (step, more) = if crossed { step(reading, &taken, began, known) } else { (known, 0.0) };
    Some(Recognised {
        set: reading.set.clone(),
        files: reading.files,
        began,
        epoch: 0,
        visits: reading.visits,
        step,
        slack,
        doubt: doubt + more,
        read: reading.read,
    })
}

/// The step after which the later epochs fit, and what it adds to the belief: the one that is known, else the one that fits
/// best, if chance would seldom. None where none does.
fn step(reading: &Reading, taken: &[Taken], began: Place, known: Option<Step>) -> (Option<Step>, f64) {
    // What the epoch that the run began in tells has been counted.
    let counted = usize::from(began.is_a_pass());
    let before = if began.is_a_pass() { 0.0 } else { fit(began, None, reading, &taken[0]).map_or(0.0, |f| f.doubt) };
    let news = |step: Step| -> Option<f64> {
        let told = passes_from(began, Some(step), reading, taken.len())?;
        let fits: Option<Vec<Fit>> =
            taken.iter().zip(told).skip(counted).map(|(taken, told)| taken.fit_all(told)).collect();
        fits.map(|fits| fits.iter().map(|fit| fit.doubt).sum::<f64>() - before)
    };
    if let Some(news) = known.and_then(news) {
        return (known, news.min(0.0));
    }
    let mut steps = Step::usual(began.draw.by, reading.files);
    if began.draw.by == By::Seed && began.offset == 0 && taken.len() > 1 {
        steps.extend(numbers_between(began, &taken[1]));
    }
    let tried = (steps.len() as f64).ln();
    let fits = steps.into_iter().filter_map(|step| Some((step, news(step)? + tried)));
    let best = fits.min_by(|a, b| a.1.total_cmp(&b.1)).filter(|(_, news)| *news <= SUPPOSED);
    best.map_or((None, 0.0), |(step, news)| (Some(step), news))
}

/// How many numbers a program's generator gave between the first two epochs, where it is not the usual.
fn numbers_between(began: Place, second: &Taken) -> Option<Step> {
    let mut surest = Surest::default();
    let from = began.draw.skip + 1;
    surest.try_field(&Field::Numbers { seed: began.draw.seed, numbers: from..from + BETWEEN }, second);
    surest.found().map(|(place, _)| Step { skip: place.draw.skip - began.draw.skip, ..Step::default() })
}

/// How each of the first passes begins for who takes as many files as were read, from a place on: files in the order of
/// their k-th visits, no more than are known of the longest. None if it cannot be drawn.
fn passes_from(place: Place, step: Option<Step>, reading: &Reading, passes: usize) -> Option<Vec<Vec<u32>>> {
    /// Epochs, of which a rank takes small shares, until the first passes have begun.
    const EPOCHS_MOST: usize = 256;
    let files = reading.files;
    let most = reading.passes.iter().take(passes).map(Vec::len).max().unwrap_or(0);
    let draws = (0..).map_while(|epoch| match (epoch, step) {
        (0, _) => Some(place.draw),
        (_, Some(step)) => Some(place.draw.after(step, epoch)),
        (_, None) => None,
    });
    if place.is_a_pass() {
        let draws: Vec<Draw> = draws.take(passes).collect();
        return draws.into_iter().map(|d| d.can_be_drawn(files).then(|| d.begins(files, most))).collect();
    }
    // Of the epoch that was begun some files are left; each epoch after that ends one pass and goes on with the next.
    let (mut visits, mut left) = (vec![0usize; files as usize], reading.visits);
    let mut told = vec![Vec::new(); passes];
    for (draw, skip) in draws.zip([place.offset].into_iter().chain(std::iter::repeat(0))).take(EPOCHS_MOST) {
        let order = draw.can_be_drawn(files).then(|| draw.order(files))?;
        for file in order.into_iter().skip(skip as usize) {
            let pass = &mut visits[file as usize];
            if let Some(told) = told.get_mut(*pass).filter(|t| t.len() < most) {
                told.push(file);
            }
            *pass += 1;
            left = left.saturating_sub(1);
        }
        if left == 0 || told.iter().all(|told| told.len() == most) {
            break;
        }
    }
    Some(told)
}
