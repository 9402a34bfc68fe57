// Package invariant stops the process at the first broken promise of our own code.
//
// A broken invariant is a bug, never an input: going on would spread it to disk, to other replicas and to
// customers. So [Check] panics with a [*Violation], which nobody recovers from except tests and the simulator,
// where it ends the run with its seed. Refusing bad input is what errors and rejections are for.
package invariant
