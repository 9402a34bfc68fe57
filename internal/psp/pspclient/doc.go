// Package pspclient carries payments' calls to a provider: to the simulated one and its like over HTTP, or to none at all.
//
// What an exchange that went wrong means is decided in one place, and in doubt the outcome is unknown:
//
//	no connection was made, or the breaker is open     not sent: the same call again, later
//	timeout, broken connection, 5xx, garbage           unknown: the provider is asked by key
//	400, 402, 413, 415, 422 to a call                  declined: the same request would be refused again
//	any other status, or one of these to a question    unknown
package pspclient
