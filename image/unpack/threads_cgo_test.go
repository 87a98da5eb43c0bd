//go:build cgo

package unpack

// confinedThreads is whether all threads of a child lose their capabilities.
const confinedThreads = false
