package api

import (
	"context"

	"wrenn.dev/wrenn/internal/server/rest"
	"wrenn.dev/wrenn/internal/server/store"
)

func toTemplate(t store.Template) rest.Template {
	return rest.Template{Name: t.Name, ID: t.TemplateID, Vcpus: t.Vcpus, MemoryMib: t.MemoryMib, DiskBytes: t.DiskBytes}
}

// ListTemplates implements rest.StrictServerInterface.
func (s *server) ListTemplates(ctx context.Context, _ rest.ListTemplatesRequestObject) (rest.ListTemplatesResponseObject, error) {
	list, err := s.Control.Templates(ctx)
	if err != nil {
		return nil, err
	}
	answer := rest.ListTemplates200JSONResponse{Templates: make([]rest.Template, len(list))}
	for i, t := range list {
		answer.Templates[i] = toTemplate(t)
	}
	return answer, nil
}

// GetTemplate implements rest.StrictServerInterface.
func (s *server) GetTemplate(ctx context.Context, r rest.GetTemplateRequestObject) (rest.GetTemplateResponseObject, error) {
	t, err := s.Control.Template(ctx, r.Name)
	if err != nil {
		return nil, err
	}
	return rest.GetTemplate200JSONResponse(toTemplate(t)), nil
}

// DeleteTemplate implements rest.StrictServerInterface.
func (s *server) DeleteTemplate(ctx context.Context, r rest.DeleteTemplateRequestObject) (rest.DeleteTemplateResponseObject, error) {
	if err := s.Control.DeleteTemplate(ctx, r.Name); err != nil {
		return nil, err
	}
	return rest.DeleteTemplate204Response{}, nil
}
