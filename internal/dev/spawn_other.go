//go:build !linux

package dev

import "syscall"

// childAttributes gives a child its own process group. Only Linux can also end it with its parent.
func childAttributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
