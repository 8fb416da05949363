//! Pooling over windows, and sampling of places.

use super::host::Host;
use super::{BOTH, Judge, LaunchChecks, input};
use crate::cpu::pool::{Pool, Sampling};
use crate::cuda::pool;
use crate::reference::pool as naive;

#[test]
fn pools() {
    let Some(host) = Host::get() else { return };
    let mut judge = Judge::new("pools");
    for (side, stride, padding) in [(3, 2, 1), (2, 2, 0), (3, 1, 1), (1, 1, 0)] {
        for (maps, height, width) in [(1, 1, 1), (3, 7, 4), (2, 16, 15), (2, 56, 56)] {
            for storage in BOTH {
                let shape = Pool { height, width, side, stride, padding };
                let len = maps * height * width;
                let out = maps * shape.out_height() * shape.out_width();
                let (mut x, xs) = input(storage, len, 1);
                let (mut dy, dys) = input(storage, out, 2);
                let x = x.place();
                let dy = dy.place();
                let case = (storage, shape, maps);
                let mut checks = LaunchChecks { judge: &mut judge, host, storage, case: &case };
                checks.check(out, |y| pool::max(&shape, maps, x, y), |y| naive::max(&shape, &xs, y));
                checks.check(out, |y| pool::average(&shape, maps, x, y), |y| naive::average(&shape, &xs, y));
                checks.check(
                    len,
                    |dx| pool::max_backward(&shape, maps, [x, dy], dx),
                    |dx| naive::max_backward(&shape, &xs, &dys, dx),
                );
                checks.check(
                    len,
                    |dx| pool::average_backward(&shape, maps, dy, dx),
                    |dx| naive::average_backward(&shape, &dys, dx),
                );
            }
        }
    }
}

#[test]
fn samplings() {
    let Some(host) = Host::get() else { return };
    let mut judge = Judge::new("samplings");
    for (maps, height, width) in [(1, 1, 1), (3, 7, 4), (2, 16, 15), (2, 56, 56)] {
        for first in [0, 1] {
            for storage in BOTH {
                let shape = Sampling { height, width, first };
                let len = maps * height * width;
                let out = maps * shape.out_height() * shape.out_width();
                let (mut x, xs) = input(storage, len, 1);
                let (mut dy, dys) = input(storage, out, 2);
                let x = x.place();
                let dy = dy.place();
                let case = (storage, shape, maps);
                let mut checks = LaunchChecks { judge: &mut judge, host, storage, case: &case };
                checks.check(out, |y| pool::sample(&shape, maps, x, y), |y| naive::sample(&shape, &xs, y));
                checks.check(
                    len,
                    |dx| pool::sample_backward(&shape, maps, dy, dx),
                    |dx| naive::sample_backward(&shape, &dys, dx),
                );
            }
        }
    }
}
