"""Settings whose values come from code alone."""

from pydantic_settings import BaseSettings, PydanticBaseSettingsSource


class FromCode(BaseSettings):
    """Reads neither the environment nor `.env`, whatever happens to stand there under the names of the fields."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - pydantic passes it by name
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - pydantic passes it by name
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - pydantic passes it by name
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - pydantic passes it by name
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """What is passed to the class."""
        return (init_settings,)
