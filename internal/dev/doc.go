// Package dev runs a cluster of real processes on one machine, for trying things out.
//
//	hanse dev ──▶ Supervisor ──▶ psp, node 1, node 2, node 3      (children, one log file each)
//	                  ▲
//	hanse dev kill 2 ─┘ control socket in the temporary directory, found by the cluster's first port
//
// One more node can be added while it runs (hanse dev add). The supervisor starts processes, does to them what it is told and says what becomes of them. It restarts
// nothing by itself: a crash is what one wants to look at.
//
// Invariants: when Run has returned no child is left, and neither is one when the supervisor was
// killed (on Linux, where the kernel kills children whose parent thread ends).
package dev
