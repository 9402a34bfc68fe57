// Package cli is the command line: it reads flags, environment and files, and nothing else does.
//
// Commands that talk to a cluster use the public client. Every one of them has --json; without it the output is for people.
// Exit codes: 0 done, 1 refused or a difference found, 2 usage, 3 no node answered.
package cli
