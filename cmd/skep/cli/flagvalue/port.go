package flagvalue

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/skep-io/skep/api"
)

// errIngress is returned when a port is to be published through the routing mesh.
var errIngress = errors.New("publishing through the ingress network needs an overlay network, which skep does not have yet")

// Ports collects published ports, each written published=N,target=N,protocol=tcp|udp,mode=host.
type Ports []*api.PortConfig

// Set adds one port.
func (p *Ports) Set(text string) error {
	port, err := parsePort(text)
	if err != nil {
		return err
	}
	*p = append(*p, port)
	return nil
}

// String is empty: the default is no port.
func (p *Ports) String() string { return "" }

// Type is Docker's word.
func (p *Ports) Type() string { return "port" }

func parsePort(text string) (*api.PortConfig, error) {
	if !strings.Contains(text, "=") {
		return nil, refuseShortPort(text)
	}
	pairs, err := fields(text)
	if err != nil {
		return nil, err
	}
	port := &api.PortConfig{Protocol: api.Protocol_PROTOCOL_TCP}
	for _, pair := range pairs {
		if !pair.hasValue || pair.value == "" {
			return nil, fmt.Errorf("invalid field: %s", pair)
		}
		if err := setPort(port, pair); err != nil {
			return nil, err
		}
	}
	if port.TargetPort == 0 {
		return nil, errors.New("missing mandatory field \"target\"")
	}
	if port.PublishMode == api.PublishMode_PUBLISH_MODE_UNSPECIFIED {
		return nil, wantHostMode(port)
	}
	return port, nil
}

func setPort(port *api.PortConfig, pair field) error {
	var err error
	switch pair.key {
	case "target":
		port.TargetPort, err = parsePortNumber("target", pair.value)
	case "published":
		port.PublishedPort, err = parsePortNumber("published", pair.value)
	case "protocol":
		port.Protocol, err = parseProtocol(pair.value)
	case "mode":
		switch pair.value {
		case "host":
			port.PublishMode = api.PublishMode_PUBLISH_MODE_HOST
		case "ingress":
			port.PublishMode = api.PublishMode_PUBLISH_MODE_UNSPECIFIED
		default:
			return fmt.Errorf("invalid publish mode value (%s): must be either 'ingress' or 'host'", pair.value)
		}
	default:
		return fmt.Errorf("invalid field key: %s", pair.key)
	}
	return err
}

func parsePortNumber(key, text string) (uint32, error) {
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return 0, fmt.Errorf("invalid %s port (%s): value must be an integer: %w", key, text, errors.Unwrap(err))
	}
	if n == 0 {
		return 0, fmt.Errorf("invalid %s port (%s): write a number from 1 to 65535", key, text)
	}
	return uint32(n), nil
}

func parseProtocol(text string) (api.Protocol, error) {
	switch strings.ToLower(text) {
	case "tcp":
		return api.Protocol_PROTOCOL_TCP, nil
	case "udp":
		return api.Protocol_PROTOCOL_UDP, nil
	}
	return 0, fmt.Errorf("invalid protocol value '%s': write tcp or udp", text)
}

// refuseShortPort explains why a port without a mode, which means ingress, can't be had. A malformed one gets its own error.
func refuseShortPort(text string) error {
	rest, protocol, hasProtocol := strings.Cut(text, "/")
	port := &api.PortConfig{Protocol: api.Protocol_PROTOCOL_TCP}
	var err error
	if hasProtocol {
		if port.Protocol, err = parseProtocol(protocol); err != nil {
			return err
		}
	}
	parts := strings.Split(rest, ":")
	target := parts[len(parts)-1]
	if port.TargetPort, err = parsePortNumber("container", target); err != nil {
		return fmt.Errorf("invalid containerPort: %s", target)
	}
	if len(parts) == 1 {
		return wantHostMode(port)
	}
	published := parts[len(parts)-2]
	if port.PublishedPort, err = parsePortNumber("host", published); err != nil {
		return fmt.Errorf("invalid hostPort: %s", published)
	}
	if len(parts) > 2 {
		return fmt.Errorf("hostip is not supported: write --publish %s", longForm(port))
	}
	return wantHostMode(port)
}

func wantHostMode(port *api.PortConfig) error {
	return fmt.Errorf("%w: publish on the node of each task with --publish %s", errIngress, longForm(port))
}

// longForm writes a port as a flag that publishes it on the task's node.
func longForm(port *api.PortConfig) string {
	var b strings.Builder
	if port.GetPublishedPort() != 0 {
		fmt.Fprintf(&b, "published=%d,", port.GetPublishedPort())
	}
	fmt.Fprintf(&b, "target=%d,", port.GetTargetPort())
	if port.GetProtocol() == api.Protocol_PROTOCOL_UDP {
		b.WriteString("protocol=udp,")
	}
	b.WriteString("mode=host")
	return b.String()
}

// TargetPort is a port inside containers.
type TargetPort struct {
	Number   uint32
	Protocol api.Protocol
}

// String returns the port as NUMBER/PROTOCOL.
func (p TargetPort) String() string {
	if p.Protocol == api.Protocol_PROTOCOL_UDP {
		return fmt.Sprintf("%d/udp", p.Number)
	}
	return fmt.Sprintf("%d/tcp", p.Number)
}

// TargetPorts collects ports to publish no more, each written TARGET or TARGET/PROTOCOL; PUBLISHED: before it is allowed.
type TargetPorts []TargetPort

// Set adds one port.
func (p *TargetPorts) Set(text string) error {
	rest, name, hasProtocol := strings.Cut(text, "/")
	port := TargetPort{Protocol: api.Protocol_PROTOCOL_TCP}
	var err error
	if hasProtocol {
		if port.Protocol, err = parseProtocol(name); err != nil {
			return err
		}
	}
	if port.Number, err = parsePortNumber("target", rest[strings.LastIndex(rest, ":")+1:]); err != nil {
		return err
	}
	*p = append(*p, port)
	return nil
}

// String is empty: the default is no port.
func (p *TargetPorts) String() string { return "" }

// Type is Docker's word.
func (p *TargetPorts) Type() string { return "port" }
