package flagvalue

import (
	"errors"
	"fmt"
	"math"
	"math/big"
	"strconv"

	"github.com/docker/go-units"
)

// nanosPerUnit is the number of billionths in one CPU.
const nanosPerUnit = 1_000_000_000

// maxDecimalDigits bounds the text of a decimal, so that 1e999999999 is refused and not computed.
const maxDecimalDigits = 32

// Bytes is a number of bytes, written like 64M or 1.5g. Units are powers of 1024.
type Bytes int64

// Set reads a size.
func (b *Bytes) Set(text string) error {
	n, err := parseBytes(text)
	if err != nil {
		return err
	}
	*b = Bytes(n)
	return nil
}

// parseBytes reads a size of 0 or more bytes.
func parseBytes(text string) (int64, error) {
	n, err := units.RAMInBytes(text)
	if err != nil {
		return 0, err
	}
	// A number too large to be one comes back as either end of the range.
	if n < 0 || n == math.MaxInt64 {
		return 0, fmt.Errorf("invalid size: '%s'", text)
	}
	return n, nil
}

// String returns the size as people write it, or "" for 0.
func (b *Bytes) String() string {
	if *b == 0 {
		return ""
	}
	return units.BytesSize(float64(*b))
}

// Type is Docker's word.
func (b *Bytes) Type() string { return "bytes" }

// NanoCPUs is a number of CPUs in billionths, written as a decimal number of CPUs like 0.5.
type NanoCPUs int64

// Set reads a number of CPUs.
func (c *NanoCPUs) Set(text string) error {
	if len(text) > maxDecimalDigits {
		return fmt.Errorf("failed to parse %.40s as a rational number: it is too long", text)
	}
	for _, r := range text {
		if (r < '0' || r > '9') && r != '.' && r != '-' && r != '+' && r != '/' {
			return fmt.Errorf("failed to parse %s as a rational number", text)
		}
	}
	cpus, ok := new(big.Rat).SetString(text)
	if !ok {
		return fmt.Errorf("failed to parse %s as a rational number", text)
	}
	if cpus.Sign() < 0 {
		return fmt.Errorf("%s is less than no CPU", text)
	}
	nano := cpus.Mul(cpus, big.NewRat(nanosPerUnit, 1))
	if !nano.IsInt() {
		return errors.New("value is too precise")
	}
	if !nano.Num().IsInt64() {
		return fmt.Errorf("%s is more CPUs than there can be", text)
	}
	*c = NanoCPUs(nano.Num().Int64())
	return nil
}

// String returns the number of CPUs as a decimal, or "" for 0.
func (c *NanoCPUs) String() string {
	if *c == 0 {
		return ""
	}
	return FormatCPUs(int64(*c))
}

// Type is Docker's word.
func (c *NanoCPUs) Type() string { return "decimal" }

// FormatCPUs writes billionths of a CPU as a decimal number of CPUs without trailing zeros.
func FormatCPUs(nano int64) string {
	return strconv.FormatFloat(float64(nano)/nanosPerUnit, 'f', -1, 64)
}

// NodeAddr is a listen address such as 0.0.0.0:2377. The default port is filled in.
type NodeAddr string

// DefaultListenAddr is the address that a manager listens on unless told otherwise, and defaultPort its port.
const (
	DefaultListenAddr = "0.0.0.0:2377"
	defaultPort       = "2377"
)

// Set takes an address with or without a port, or an interface's name.
func (a *NodeAddr) Set(text string) error {
	full, err := withPort(text, "0.0.0.0")
	if err != nil {
		return err
	}
	*a = NodeAddr(full)
	return nil
}

// String returns the address with its port.
func (a *NodeAddr) String() string { return string(*a) }

// Type is Docker's word.
func (a *NodeAddr) Type() string { return "node-addr" }
