package client

import (
	"context"
	"fmt"
	"time"

	"wrenn.dev/wrenn/client/internal/rest"
)

// Port is how a port of a sandbox is reached from outside.
type Port struct {
	URL    string
	Public bool // everybody who knows the URL may; otherwise who shows an access token
}

// Port tells how a port is reached, whether anything listens there or not. The URL is the same for the sandbox's whole life.
func (s *Sandbox) Port(ctx context.Context, port int) (*Port, error) {
	if err := named("id", s.ID); err != nil {
		return nil, err
	}
	if port < 1 || port > 65535 {
		return nil, invalid("port", fmt.Sprintf("%d is none", port), "give 1 to 65535")
	}
	resp, err := s.c.rest.GetPort(ctx, s.ID, int32(port))
	got, err := decode[rest.Port](resp, err)
	return as(func(p rest.Port) *Port { return &Port{URL: p.URL, Public: p.Public} }, got, err)
}

// CreateAccessToken makes a token that opens all ports of the sandbox: in the header Wrenn-Access-Token, or once as ?wrenn_access_token= in a browser,
// which then has a cookie. It is told this once, and only the newest 32 of a sandbox are good.
func (s *Sandbox) CreateAccessToken(ctx context.Context) (string, error) {
	if err := named("id", s.ID); err != nil {
		return "", err
	}
	resp, err := s.c.rest.CreateAccessToken(ctx, s.ID)
	made, err := decode[rest.AccessToken](resp, err)
	return made.Token, err
}

// RevokeAccessTokens has all access tokens of the sandbox refused, within a second. Connections that are open stay.
func (s *Sandbox) RevokeAccessTokens(ctx context.Context) error {
	if err := named("id", s.ID); err != nil {
		return err
	}
	resp, err := s.c.rest.RevokeAccessTokens(ctx, s.ID)
	_, err = decode[struct{}](resp, err)
	return err
}

// Metrics are what a sandbox takes of its host.
type Metrics struct {
	At  time.Time
	CPU time.Duration // that its machine has had since it was started or resumed
	// MemoryBytes are the host's that its machine has, page cache included.
	MemoryBytes, MemoryLimitBytes int64
	// DiskUsedBytes is what is used of the room for changes of its disk, and DiskHostBytes what they take on the host's file system.
	DiskUsedBytes, DiskCapacityBytes, DiskHostBytes int64
	// What the guest has received from the outside and sent since its machine was started or resumed; nil where the host does not tell.
	NetworkReceivedBytes, NetworkSentBytes *int64
	// Pager is the process that brings in the memory of a machine that did not boot; nil for one that did.
	Pager *PagerMetrics
}

// PagerMetrics are what that process takes, and what it did.
type PagerMetrics struct {
	CPU         time.Duration
	MemoryBytes int64
	Faults      int64
	ReadBytes   int64
	Ended       bool // it has nothing more to bring in
}

func toMetrics(m rest.SandboxMetrics) *Metrics {
	made := &Metrics{At: m.At, CPU: time.Duration(m.CPUMicroseconds) * time.Microsecond, MemoryBytes: m.MemoryBytes, MemoryLimitBytes: m.MemoryLimitBytes,
		DiskUsedBytes: m.DiskUsedBytes, DiskCapacityBytes: m.DiskCapacityBytes, DiskHostBytes: m.DiskHostBytes,
		NetworkReceivedBytes: m.NetworkReceivedBytes, NetworkSentBytes: m.NetworkSentBytes}
	if p := m.Pager; p != nil {
		made.Pager = &PagerMetrics{CPU: time.Duration(p.CPUMicroseconds) * time.Microsecond, MemoryBytes: p.MemoryBytes, Faults: p.Faults, ReadBytes: p.ReadBytes, Ended: p.Ended}
	}
	return made
}

// Metrics tells what the sandbox takes of its host, now. One that is paused or has ended takes nothing, which is ErrFailedPrecondition.
func (s *Sandbox) Metrics(ctx context.Context) (*Metrics, error) {
	if err := named("id", s.ID); err != nil {
		return nil, err
	}
	resp, err := s.c.rest.GetSandboxMetrics(ctx, s.ID)
	got, err := decode[rest.SandboxMetrics](resp, err)
	return as(toMetrics, got, err)
}
