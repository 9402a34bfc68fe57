// Package transporttest is the suite that every transport passes, so that what holds in the simulator holds on a real network.
//
//	Run(t, newLab) ─▶ for each test: a synctest bubble ─▶ lab := newLab(t) ─▶ lab.Start(node) … send, Settle, compare
//
// Each test runs in a bubble of testing/synctest: time is virtual, and "nothing more arrives" can be told from "not yet".
package transporttest
