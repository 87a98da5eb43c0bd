package flagvalue

import (
	"errors"
	"fmt"
	"path"
	"strconv"
	"strings"

	"github.com/docker/go-units"
)

// MemorySwap is a number of bytes of memory and swap together, or -1 for no limit of swap.
type MemorySwap int64

// Set reads a size or -1.
func (m *MemorySwap) Set(text string) error {
	if text == "-1" {
		*m = -1
		return nil
	}
	n, err := parseBytes(text)
	if err != nil {
		return fmt.Errorf("%w: write a size such as 1g, or -1 for no limit", err)
	}
	*m = MemorySwap(n)
	return nil
}

// String returns the size as people write it, or "" for 0.
func (m *MemorySwap) String() string {
	if *m == -1 {
		return "-1"
	}
	return (*Bytes)(m).String()
}

// Type is Docker's word.
func (m *MemorySwap) Type() string { return "bytes" }

// DeviceRate is a rate for a device's path on the node; 0 is none.
type DeviceRate struct {
	Path string
	Rate uint64
}

// splitDeviceRate cuts PATH:RATE; a path may have colons.
func splitDeviceRate(text string) (device, rate string, err error) {
	at := strings.LastIndex(text, ":")
	if at < 0 {
		return "", "", fmt.Errorf("bad format: %q: write PATH:RATE, as in /dev/sda:1000", text)
	}
	device = text[:at]
	if !strings.HasPrefix(device, "/dev/") || path.Clean(device) != device {
		return "", "", fmt.Errorf("bad format for device path: %q: write the path of a block device below /dev", device)
	}
	return device, text[at+1:], nil
}

// DeviceBytes collects rates in bytes a second, written as /dev/sda:10mb.
type DeviceBytes []DeviceRate

// Set adds one rate.
func (d *DeviceBytes) Set(text string) error {
	device, rate, err := splitDeviceRate(text)
	if err != nil {
		return err
	}
	n, err := parseBytes(rate)
	if err != nil {
		return fmt.Errorf("invalid rate for device %s: %q: write bytes a second, such as 1048576, 1mb or 0 for no limit", device, rate)
	}
	*d = append(*d, DeviceRate{device, uint64(n)})
	return nil
}

// String is empty: the default is no rate.
func (d *DeviceBytes) String() string { return "" }

// Type is Docker's word.
func (d *DeviceBytes) Type() string { return "list" }

// DeviceOperations collects rates in operations a second, written as /dev/sda:1000.
type DeviceOperations []DeviceRate

// Set adds one rate.
func (d *DeviceOperations) Set(text string) error {
	device, rate, err := splitDeviceRate(text)
	if err != nil {
		return err
	}
	n, err := strconv.ParseUint(rate, 10, 32)
	if errors.Is(err, strconv.ErrRange) {
		return fmt.Errorf("invalid rate for device %s: %s operations a second are too many: at most %d can be set", device, rate, uint32(1<<32-1))
	}
	if err != nil {
		return fmt.Errorf("invalid rate for device %s: %q: write operations a second as a whole number, 0 for no limit", device, rate)
	}
	*d = append(*d, DeviceRate{device, n})
	return nil
}

// String is empty: the default is no rate.
func (d *DeviceOperations) String() string { return "" }

// Type is Docker's word.
func (d *DeviceOperations) Type() string { return "list" }

// NetworkRates are rates in bits a second of what is received and sent, written as 10M for both or in=10M,out=1M; nil was not given. Units
// are powers of 1000.
type NetworkRates struct{ In, Out *uint64 }

// Set reads one or both rates.
func (n *NetworkRates) Set(text string) error {
	if !strings.Contains(text, "=") {
		rate, err := parseBits(text)
		if err != nil {
			return err
		}
		n.In, n.Out = &rate, &rate
		return nil
	}
	for _, part := range strings.Split(text, ",") {
		way, value, _ := strings.Cut(part, "=")
		rate, err := parseBits(value)
		if err != nil {
			return err
		}
		switch way {
		case "in":
			n.In = &rate
		case "out":
			n.Out = &rate
		default:
			return fmt.Errorf("unknown way %q: write RATE, or in=RATE,out=RATE", way)
		}
	}
	return nil
}

func parseBits(text string) (uint64, error) {
	n, err := units.FromHumanSize(text)
	const most = 1 << 50 // what no network does
	if err != nil || n < 0 || n > most {
		return 0, fmt.Errorf("invalid rate %q: write bits a second, such as 10M or 500k, or 0 for no limit", text)
	}
	return uint64(n), nil
}

// String is empty: the default is no rate.
func (n *NetworkRates) String() string { return "" }

// Type names the value in help.
func (n *NetworkRates) Type() string { return "rates" }
