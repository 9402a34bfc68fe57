// Package sim plays whole clusters in one goroutine.
package sim
