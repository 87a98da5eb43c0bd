package logdriver

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"path"
	"strconv"
	"strings"
)

// Formats of syslog's messages.
const (
	RFC3164 = "rfc3164"
	RFC5424 = "rfc5424"
)

// Ways to a syslog server.
const (
	Unixgram = "unixgram"
	UDP      = "udp"
	TCP      = "tcp"
	TLS      = "tcp+tls"
)

// Limits of what a service names.
const (
	maxLabels  = 32
	maxTag     = 1024
	maxAddress = 255
	maxPort    = 65535
)

// Syslog is where and how syslog's messages go.
type Syslog struct {
	// Network is one of the ways to a server, and Address the path of a socket, or host:port.
	Network, Address string
	Facility         int
	Format           string
	// CA is the path, on each node, of the certificates that a server's has to come from; empty is those of the system.
	CA string
}

// facilities are those of RFC 5424, section 6.2.1, that a container may have. Programs act on what they read of the others: fail2ban shuts out
// whom a message of auth names.
func facilities() map[string]int {
	all := map[string]int{"user": 1, "mail": 2, "daemon": 3, "lpr": 6, "news": 7, "uucp": 8, "ftp": 11}
	const local0, locals = 16, 8
	for i := range locals {
		all["local"+strconv.Itoa(i)] = local0 + i
	}
	return all
}

// Destination is where the lines of a task go beyond its files, or empty: what a grant has to name.
func (d Driver) Destination() string {
	switch d.Name {
	case Journald:
		return Journald
	case Syslogd:
		return d.Syslog.destination()
	}
	return ""
}

func (s Syslog) destination() string { return s.Network + "://" + s.Address }

// CheckDestination returns an error unless a text is a destination, as Destination writes it.
func CheckDestination(text string) error {
	if text == Journald {
		return nil
	}
	var d Driver
	if err := d.setAddress(text); err != nil {
		return fmt.Errorf("%w, or %s", err, Journald)
	}
	if want := d.Syslog.destination(); want != text {
		return fmt.Errorf("write %s", want)
	}
	return nil
}

func (d *Driver) setAddress(value string) error {
	bad := fmt.Errorf("invalid address %q: write unixgram:///dev/log, udp://HOST:PORT, tcp://HOST:PORT or tcp+tls://HOST:PORT", quoted(value))
	u, err := url.Parse(value)
	if err != nil || len(value) > maxAddress || u.RawQuery != "" || u.Fragment != "" || u.User != nil || u.Opaque != "" {
		return bad
	}
	d.Syslog.Network = u.Scheme
	port := map[string]string{UDP: "514", TCP: "514", TLS: "6514"}[u.Scheme]
	switch {
	case u.Scheme == Unixgram && u.Host == "" && path.IsAbs(u.Path) && path.Clean(u.Path) == u.Path && u.Path != "/":
		d.Syslog.Address = u.Path
		return nil
	case port == "" || u.Hostname() == "" || strings.Trim(u.Path, "/") != "":
		return bad
	}
	if u.Port() != "" {
		port = u.Port()
	}
	if n, err := strconv.Atoi(port); err != nil || n < 1 || n > maxPort {
		return bad
	}
	d.Syslog.Address = net.JoinHostPort(strings.ToLower(u.Hostname()), port)
	return nil
}

func (d *Driver) setFacility(value string) error {
	facility, ok := facilities()[value]
	if !ok {
		return fmt.Errorf("invalid facility %q: it is %s", quoted(value), names(facilities()))
	}
	d.Syslog.Facility = facility
	return nil
}

func (d *Driver) setFormat(value string) error {
	if value != RFC3164 && value != RFC5424 {
		return fmt.Errorf("invalid format %q: write %s or %s", quoted(value), RFC3164, RFC5424)
	}
	d.Syslog.Format = value
	return nil
}

func (d *Driver) setCA(value string) error {
	if !path.IsAbs(value) || len(value) > maxAddress {
		return fmt.Errorf("invalid path %q: write the absolute path of a PEM file on the nodes", quoted(value))
	}
	d.Syslog.CA = value
	return nil
}

func (d *Driver) setTag(value string) error {
	if value == "" || len(value) > maxTag {
		return fmt.Errorf("a tag has 1 to %d bytes", maxTag)
	}
	d.Tag = value
	return nil
}

func (d *Driver) setLabels(value string) error {
	if d.Labels = strings.Split(value, ","); len(d.Labels) > maxLabels {
		return fmt.Errorf("%d labels are too many: at most %d are allowed", len(d.Labels), maxLabels)
	}
	return nil
}

// check fills in what depends on other options.
func (s *Syslog) check() error {
	if s.CA != "" && s.Network != TLS {
		return errors.New("syslog-tls-ca-cert: is for an address tcp+tls://HOST:PORT only")
	}
	if s.Format == "" && s.Network == Unixgram {
		s.Format = RFC3164 // as glibc's syslog(3), which is all that journald understands
	}
	if s.Format == "" {
		s.Format = RFC5424
	}
	return nil
}
