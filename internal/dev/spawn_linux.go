package dev

import "syscall"

// childAttributes gives a child its own process group, so that Ctrl-C reaches the supervisor alone, which stops the
// children in order; and has the kernel kill it when the supervisor dies without a chance to.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
