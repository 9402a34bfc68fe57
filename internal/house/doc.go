// Package house tests what must hold exactly about the code as a whole, and would otherwise have to be remembered:
//
//   - imports point down: the levels of the architecture are a list, and each package has its place in it;
//   - the core computes the same everywhere: no clock, randomness, I/O, goroutines, floats or order of maps in it;
//   - every package and every exported name has its comment;
//   - the documents say what the code says: tables of transitions, codes, dependencies, links.
//
// It has no code of its own. A failure names the place and the rule; when the rule is wrong, change it here, in the open.
package house
