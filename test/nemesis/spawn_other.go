//go:build !linux

package main

import "syscall"

// childAttributes: there is no signal at a parent's death here, so a nemesis that is killed leaves its nodes behind.
func childAttributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
