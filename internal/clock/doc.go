// Package clock is what a node knows of time. There are two notions, and they are not mixed:
//
//	Wall   what the system clock shows   becomes part of commands: the log's time (package hlc), IDs, expiry; what peers
//	                                     compare with theirs. It may jump, and jumps are not hidden: they can be detected.
//	Mono   time since the node started   deadlines of waiting requests, pauses before retries, flushes. It cannot jump.
//
// Wall is not smoothed: the service that sets the machine's clock slews what can be slewed, and a second hand on the rudder would
// only hide from the others how far off this machine is. The log's time never goes back whatever Wall does; after a
// jump ahead it counts on from there until the clock has caught up.
//
// A node has one [Clock], given to all its parts. [Skewed] is a wall clock that is wrong on purpose, for tests of faults.
package clock
