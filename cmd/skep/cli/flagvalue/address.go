package flagvalue

import (
	"fmt"
	"net"
	"strconv"
	"strings"
)

// withPort returns text as host:port. A missing port is Swarm's, a missing host is anyHost; without an anyHost it is an error.
func withPort(text, anyHost string) (string, error) {
	text = strings.TrimPrefix(text, "tcp://")
	noAddress := fmt.Errorf("%q is no address: write HOST, HOST:PORT or INTERFACE:PORT", text)
	if text == "" || strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r == '/' }) {
		return "", noAddress
	}
	host, port, err := net.SplitHostPort(text)
	switch {
	case err == nil:
	case strings.Count(text, ":") == 0, net.ParseIP(strings.Trim(text, "[]")) != nil:
		host, port = strings.Trim(text, "[]"), defaultPort
	default:
		return "", noAddress
	}
	if strings.ContainsAny(host, "[]") {
		return "", noAddress
	}
	if host == "" {
		host = anyHost
	}
	if host == "" {
		return "", fmt.Errorf("%q names no host: write HOST:PORT", text)
	}
	if port == "" {
		port = defaultPort
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return "", fmt.Errorf("%q is no port: write a number from 1 to 65535", port)
	}
	return net.JoinHostPort(host, port), nil
}

// RemoteAddr reads the address of a manager to join through; a missing port is 2377.
func RemoteAddr(text string) (string, error) { return withPort(text, "") }
