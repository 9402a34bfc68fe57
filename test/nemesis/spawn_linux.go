package main

import "syscall"

// childAttributes gives a child its own process group, so that Ctrl-C reaches this program alone, which then ends its children; and has the
// kernel kill it when this program dies without a chance to.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
